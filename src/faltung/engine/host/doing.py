"""What is done when a call fits an entry (see ``quick``): memory is lent to what is made, then the order, views."""

DOING = """
define internal ptr @output(ptr %tools, ptr %pool, ptr %about) nounwind {  ; about: size, dtype, axes, sizes
  %number = load i64, ptr %about
  %dtype = call ptr @pointer(ptr %about, i64 1)
  %axes = call i64 @word(ptr %about, i64 2)
  %sizes = call ptr @from(ptr %about, i64 3)
  %small = icmp slt i64 %number, 0
  br i1 %small, label %own, label %lend
own:
  %own.array = call ptr @new_array(
    ptr %tools, ptr %dtype, i64 %axes, ptr %sizes, ptr null, ptr null, i64 0
  )
  ret ptr %own.array
lend:
  %array = call ptr @lent_array(ptr %pool, i64 %number, ptr %dtype, i64 %axes, ptr %sizes)
  ret ptr %array
}

define internal ptr @view(ptr %tools, ptr %about, ptr %arrays) nounwind {  ; about: array, offset, dtype, axes, ...
  %number = load i64, ptr %about
  %offset = call i64 @word(ptr %about, i64 1)
  %dtype = call ptr @pointer(ptr %about, i64 2)
  %axes = call i64 @word(ptr %about, i64 3)
  %sizes = call ptr @from(ptr %about, i64 4)
  %strides = call ptr @from(ptr %sizes, i64 %axes)
  %whole = call ptr @noted(ptr %arrays, i64 %number)
  %begin = call ptr @place(ptr %whole)
  %first = getelementptr i8, ptr %begin, i64 %offset
  %own = call i64 @word(ptr %whole, i64 {flags})
  %writeable = and i64 %own, 1024
  %view = call ptr @new_array(
    ptr %tools, ptr %dtype, i64 %axes, ptr %sizes, ptr %strides, ptr %first, i64 %writeable
  )
  %failed = icmp eq ptr %view, null
  br i1 %failed, label %end, label %refer
refer:
  call void @Py_IncRef(ptr %tools, ptr %whole)
  %code = call i32 @PyArray_SetBaseObject(ptr %tools, ptr %view, ptr %whole)
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %drop, label %end
drop:
  call void @Py_DecRef(ptr %tools, ptr %view)
  ret ptr null
end:
  ret ptr %view
}

define internal i1 @is_free(ptr %tools) nounwind {  ; and not used by another thread: the memory that orders need
  %busy = call i64 @word(ptr %tools, i64 {busy})
  %free = icmp eq i64 %busy, 0
  ret i1 %free
}

define internal ptr @order(ptr %tools, ptr %perform, ptr %about, ptr %arrays) nounwind {  ; done; what follows
  call void @put(i64 1, ptr %tools, i64 {busy})
  %lets = load i64, ptr %about
  %order = call ptr @pointer(ptr %about, i64 1)
  %team = call ptr @pointer(ptr %about, i64 2)
  %wanted = call i64 @word(ptr %about, i64 3)
  %places = call i64 @word(ptr %about, i64 4)
  %begin = call ptr @from(ptr %about, i64 5)
  br label %place
place:
  %n = phi i64 [ 0, %0 ], [ %n.up, %next ]
  %here = phi ptr [ %begin, %0 ], [ %there, %next ]
  %left = icmp slt i64 %n, %places
  br i1 %left, label %next, label %placed
next:
  %target = load i64, ptr %here
  %number = call i64 @word(ptr %here, i64 1)
  %offset = call i64 @word(ptr %here, i64 2)
  %array = call ptr @noted(ptr %arrays, i64 %number)
  %first = call ptr @place(ptr %array)
  %found = getelementptr i8, ptr %first, i64 %offset
  call void @point(ptr %found, ptr %order, i64 %target)
  %there = call ptr @from(ptr %here, i64 3)
  %n.up = add i64 %n, 1
  br label %place
placed:
  %alone = icmp eq ptr %team, null
  br i1 %alone, label %lock, label %helped
helped:
  %many = call i64 @word(ptr %team, i64 2)
  %enough = icmp slt i64 %wanted, %many
  %helpers = select i1 %enough, i64 %wanted, i64 %many
  %team.busy = call i64 @word(ptr %team, i64 0)
  %posts = call i64 @word(ptr %team, i64 1)
  call void @put(i64 %team.busy, ptr %order, i64 6)
  call void @put(i64 %posts, ptr %order, i64 7)
  call void @put(i64 %helpers, ptr %order, i64 8)
  br label %lock
lock:
  %keeps = icmp eq i64 %lets, 0
  br i1 %keeps, label %kept, label %given
kept:
  call void %perform(ptr %order)
  br label %end
given:
  %thread = call ptr @PyEval_SaveThread(ptr %tools)
  call void %perform(ptr %order)
  call void @PyEval_RestoreThread(ptr %tools, ptr %thread)
  br label %end
end:
  call void @put(i64 0, ptr %tools, i64 {busy})
  ret ptr %here
}

define internal i1 @called(ptr %tools, ptr %function) nounwind {  ; without arguments; null is no function
  %none = icmp eq ptr %function, null
  br i1 %none, label %yes, label %call
call:
  %result = call ptr @PyObject_CallNoArgs(ptr %tools, ptr %function)
  %failed = icmp eq ptr %result, null
  br i1 %failed, label %no, label %drop
drop:
  call void @Py_DecRef(ptr %tools, ptr %result)
  ret i1 true
yes:
  ret i1 true
no:
  ret i1 false
}

define internal ptr @result(ptr %tools, ptr %pool, ptr %cursor, ptr %arrays) nounwind {  ; null, no error: not now
  %outputs = call i64 @next(ptr %cursor)
  br label %output
output:
  %o = phi i64 [ 0, %0 ], [ %o.up, %output.noted ]
  %o.left = icmp slt i64 %o, %outputs
  br i1 %o.left, label %output.next, label %wake
output.next:
  %o.about = load ptr, ptr %cursor
  %o.array = call ptr @output(ptr %tools, ptr %pool, ptr %o.about)
  %o.failed = icmp eq ptr %o.array, null
  br i1 %o.failed, label %fail, label %output.noted
output.noted:
  call void @note(ptr %o.array, ptr %arrays)
  %o.axes = call i64 @word(ptr %o.about, i64 2)
  %o.words = add i64 %o.axes, 3
  %o.behind = call ptr @from(ptr %o.about, i64 %o.words)
  store ptr %o.behind, ptr %cursor
  %o.up = add i64 %o, 1
  br label %output
wake:
  %wake.word = call i64 @next(ptr %cursor)
  %wake.function = inttoptr i64 %wake.word to ptr
  %awake = call i1 @called(ptr %tools, ptr %wake.function)
  br i1 %awake, label %perform, label %fail
perform:
  %perform.word = call i64 @next(ptr %cursor)
  %perform.function = inttoptr i64 %perform.word to ptr
  %nothing = icmp eq ptr %perform.function, null
  br i1 %nothing, label %views, label %ask
ask:
  %free = call i1 @is_free(ptr %tools)
  br i1 %free, label %do, label %fail
do:
  %about = load ptr, ptr %cursor
  %behind = call ptr @order(ptr %tools, ptr %perform.function, ptr %about, ptr %arrays)
  store ptr %behind, ptr %cursor
  br label %views
views:
  %count = call i64 @next(ptr %cursor)
  br label %view
view:
  %v = phi i64 [ 0, %views ], [ %v.up, %view.noted ]
  %v.left = icmp slt i64 %v, %count
  br i1 %v.left, label %view.next, label %end
view.next:
  %v.about = load ptr, ptr %cursor
  %v.array = call ptr @view(ptr %tools, ptr %v.about, ptr %arrays)
  %v.failed = icmp eq ptr %v.array, null
  br i1 %v.failed, label %fail, label %view.noted
view.noted:
  call void @note(ptr %v.array, ptr %arrays)
  %v.axes = call i64 @word(ptr %v.about, i64 3)
  %v.both = mul i64 %v.axes, 2
  %v.words = add i64 %v.both, 4
  %v.behind = call ptr @from(ptr %v.about, i64 %v.words)
  store ptr %v.behind, ptr %cursor
  %v.up = add i64 %v, 1
  br label %view
end:
  %result = call ptr @made(ptr %tools, ptr %cursor, ptr %arrays)
  ret ptr %result
fail:
  ret ptr null
}
"""
