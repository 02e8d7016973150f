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


def comparison(title, rows, key, scale, *ours):
    """Ours and every peer, the best peer in bold, and by how much it is behind each of ours: its number over that."""
    peers = list(dict.fromkeys(side for row in rows for side in row[key] if side not in ours))
    body = []
    for row in rows:
        numbers = {side: scale * number for side, number in row[key].items()}
        best = min((side for side in numbers if side not in ours), key=numbers.get, default=None)
        cells = [f"**{shown(numbers[side])}**" if side == best else numbers.get(side) for side in peers]
        ratios = [numbers[best] / numbers[side] if best and numbers.get(side) else None for side in ours]
        body.append([row["work"], row["batch"], *(numbers.get(side) for side in ours), *cells, *ratios])
    ratios = ["ratio"] if len(ours) == 1 else [f"ratio of {side}" for side in ours]
    return table(title, ["network", "batch", *ours, *peers, *ratios], body)
