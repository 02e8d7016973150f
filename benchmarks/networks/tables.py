"""Rows as Markdown."""


def table(title, header, rows):
    """A Markdown table under its title; numbers with three digits."""
    lines = [f"**{title}**", "", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(map(shown, row))} |" for row in rows]
    return "\n".join([*lines, ""])


def shown(value):
    """Three digits of a number; a dash for what was not measured."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"
    return str(value)


def comparison(title, rows, key, scale, ours):
    """Ours and every peer, the best peer in bold, and by how much it is behind: its number over ours."""
    peers = list(dict.fromkeys(side for row in rows for side in row[key] if side != ours))
    body = []
    for row in rows:
        numbers = {side: scale * number for side, number in row[key].items()}
        best = min((side for side in numbers if side != ours), key=numbers.get, default=None)
        cells = [f"**{shown(numbers[side])}**" if side == best else numbers.get(side) for side in peers]
        ratio = numbers[best] / numbers[ours] if best and numbers.get(ours) else None
        body.append([row["work"], row["batch"], numbers.get(ours), *cells, ratio])
    return table(title, ["network", "batch", ours, *peers, "ratio"], body)
