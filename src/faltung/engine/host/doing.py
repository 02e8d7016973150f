"""What is done when a call fits an entry (see ``quick``): memory is lent to what is made, then the order, views."""

DOING = """
def output(tools, pool, about):  # about: size, dtype, axes, sizes
    if about[0] < 0:
        return new_array(tools, about[1], about[2], about[3:], 0, 0, 0)
    return lent_array(pool, about[0], about[1], about[2], about[3:])

def view(tools, about, arrays):  # about: array, offset, dtype, axes, sizes, strides
    axes = about[3]
    whole = noted(arrays, about[0])
    first = whole[PLACE] + about[1]
    writeable = whole[FLAGS] & 1024
    array = new_array(tools, about[2], axes, about[4:], about[axes + 4:], first, writeable)
    if array:
        Py_IncRef(tools, whole)
        if PyArray_SetBaseObject(tools, array, whole):
            Py_DecRef(tools, array)
            return 0
    return array

def order(tools, perform, about, arrays):  # done; what follows
    tools[busy] = 1
    lets = about[0]
    words = about[1]
    team = about[2]
    here = about[5:]
    n = 0
    while n < about[4]:
        words[here[0]] = noted(arrays, here[1])[PLACE] + here[2]
        here = here[3:]
        n += 1
    if team:
        words[6] = team[0]
        words[7] = team[1]
        words[8] = about[3] if about[3] < team[2] else team[2]
    thread = PyEval_SaveThread(tools) if lets else 0
    perform(words)
    if lets:
        PyEval_RestoreThread(tools, thread)
    tools[busy] = 0
    return here

def called(tools, function):  # without arguments; 0 is no function
    if not function:
        return 1
    result = PyObject_CallNoArgs(tools, function)
    if not result:
        return 0
    Py_DecRef(tools, result)
    return 1

def result(tools, pool, cursor, arrays):  # 0 without an error: not now
    left = next(cursor)
    while left:
        about = cursor[0]
        array = output(tools, pool, about)
        if not array:
            return 0
        note(array, arrays)
        cursor[0] = about[about[2] + 3:]
        left -= 1
    if not called(tools, next(cursor)):
        return 0
    perform = next(cursor)
    if perform:
        if tools[busy]:  # another thread uses the memory that orders need
            return 0
        cursor[0] = order(tools, perform, cursor[0], arrays)
    left = next(cursor)
    while left:
        about = cursor[0]
        array = view(tools, about, arrays)
        if not array:
            return 0
        note(array, arrays)
        cursor[0] = about[2 * about[3] + 4:]
        left -= 1
    return made(tools, cursor, arrays)
"""
