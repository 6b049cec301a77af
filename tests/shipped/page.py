"""Draws the dashboards on one local page, with what a Prometheus answers to their own queries: a plain
stand-in for Grafana, to look at units, legends and gaps. Prints what it asked, every query that brought
nothing (a figure that is none, NaN, is nothing), and the values of each variable.

    tests/shipped/page.py PROMETHEUS_URL OUT_FOLDER SECONDS [VARIABLE=VALUE ...]
"""

import html
import json
import math
import pathlib
import re
import sys
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STEP = 5
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7a6a00", "#555555"]


def ask(base, path, **query):
    url = f"{base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)["data"]


def filled(expr, values):
    """With variables as Grafana puts them in."""
    for name, value in {"__rate_interval": "1m", **values}.items():
        expr = re.sub(rf"\$\{{?{name}(?::\w+)?\}}?", value, expr)
    return expr


def human(value, unit, decimals=None):
    if value is None or math.isnan(value):
        return "–"
    if unit == "short" and decimals is not None:
        return f"{value:.{decimals}f}"
    if unit in ("Bps", "bytes"):
        for scale, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= scale:
                return f"{value / scale:.2f} {name}" + ("/s" if unit == "Bps" else "")
        return f"{value:.0f} B" + ("/s" if unit == "Bps" else "")
    if unit == "percentunit":
        return f"{value * 100:.1f} %"
    if unit == "s":
        return f"{value * 1000:.1f} ms" if abs(value) < 1 else f"{value:.1f} s"
    if unit == "dtdurations":
        return next(f"{value / size:.1f} {name}" for size, name in ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (1e-9, "s")) if abs(value) >= size)
    return f"{value:.4g}"


def mapped(value, mappings):
    for mapping in mappings:
        options = mapping["options"]
        if mapping["type"] == "range":
            found = isinstance(value, float) and options["from"] <= value <= options["to"] and options["result"]
        else:
            found = options.get(f"{value:g}" if isinstance(value, float) else str(value))
        if found:
            return found.get("text", str(value)), found.get("color")
    return None, None


def legend(template, labels):
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: labels.get(m[1], ""), template) or ", ".join(f"{k}={v}" for k, v in labels.items())


def color_of(value, steps):
    color = None
    for step in steps:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return color


def plot(lines, unit, stacked, width, height, decimals, fixed):
    """Lines over time, as SVG."""
    now = time.time()
    begin = now - SPAN
    if stacked:
        sums, stackedlines = {}, []
        for name, points in lines:
            made = []
            for t, v in points:
                sums[t] = sums.get(t, 0) + (0 if math.isnan(v) else v)
                made.append((t, sums[t]))
            stackedlines.append((name, made))
        drawn = stackedlines
    else:
        drawn = lines
    figures = [v for _, points in drawn for _, v in points if not math.isnan(v)]
    low = min(figures + [0])
    top = max(figures + [0])
    top += top == low
    w, h = width, height
    parts = [f'<svg viewBox="0 0 {w} {h}" width="100%">']
    for at, x, anchor in ((begin, 66, "start"), (now, w - 2, "end")):
        parts.append(f'<text x="{x}" y="{h - 1}" text-anchor="{anchor}" class="axis">{time.strftime("%H:%M:%S", time.gmtime(at))}</text>')
    for part in (0, 0.5, 1):
        y = h - 14 - part * (h - 24)
        parts.append(f'<line x1="66" x2="{w}" y1="{y}" y2="{y}" stroke="#8884"/><text x="62" y="{y + 4}" text-anchor="end" class="axis">{html.escape(human(low + part * (top - low), unit, decimals))}</text>')
    colours = [fixed.get(name, PALETTE[n % len(PALETTE)]) for n, (name, _) in enumerate(lines)]
    under = None
    for n, (name, points) in enumerate(drawn):
        at = [(66 + (t - begin) / SPAN * (w - 68), h - 14 - (v - low) / (top - low) * (h - 24)) for t, v in points if not math.isnan(v) and t >= begin]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        if stacked and at:
            # Each above the one before it.
            below = under or [(at[0][0], h - 14), (at[-1][0], h - 14)]
            area = path + " " + " ".join(f"{x:.1f},{y:.1f}" for x, y in reversed(below))
            parts.append(f'<polygon points="{area}" fill="{colours[n]}" fill-opacity="0.5"/>')
            under = at
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[n]}" stroke-width="2"/>')
    parts.append("</svg>")
    for n, (name, points) in enumerate(lines[:12]):
        last = points[-1][1] if points else math.nan
        parts.append(f'<div class="legend"><i style="background:{colours[n]}"></i>{html.escape(name)} <b>{human(last, unit, decimals)}</b></div>')
    if len(lines) > 12:
        parts.append(f'<div class="legend">and {len(lines) - 12} more</div>')
    return "".join(parts)


def rows_of(panel, results):
    """What Grafana's transformations make of a table."""
    rows = [dict(one["metric"], Value=float(one["value"][1])) for result in results for one in result]
    names, hidden, order = {}, {"Time"}, {}
    for change in panel["transformations"]:
        options = change["options"]
        if change["id"] == "organize":
            hidden |= {name for name, is_hidden in options["excludeByName"].items() if is_hidden}
            names.update(options["renameByName"])
            order = options["indexByName"]
        elif change["id"] == "groupingToMatrix":
            columns = sorted({row[options["columnField"]] for row in rows})
            corner = f'{options["rowField"]}\\{options["columnField"]}'
            lines = {}
            for row in rows:
                lines.setdefault(row[options["rowField"]], {})[row[options["columnField"]]] = row["Value"]
            rows = [{corner: name, **{column: cells.get(column) for column in columns}} for name, cells in sorted(lines.items())]
    hidden |= {o["matcher"]["options"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"] if p["id"] == "custom.hidden"}
    rows = [sorted(row.items(), key=lambda item: order.get(item[0], len(order))) for row in rows]
    rows = [{names.get(key, key): value for key, value in row if key not in hidden and key != "__name__"} for row in rows]
    for by in panel["options"].get("sortBy", []):
        rows.sort(key=lambda row: row.get(by["displayName"], ""), reverse=by["desc"])
    return rows


def contrast(color):
    red, green, blue = (int(color[n : n + 2], 16) for n in (1, 3, 5))
    return "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#111"


def table(panel, results):
    rows = rows_of(panel, results)
    if not rows:
        return ""
    defaults = panel["fieldConfig"]["defaults"]
    units = {o["matcher"]["options"]: {p["id"]: p["value"] for p in o["properties"]} for o in panel["fieldConfig"]["overrides"] if o["matcher"]["id"] == "byName"}
    by_type = {p["id"]: p["value"] for o in panel["fieldConfig"]["overrides"] if o["matcher"]["id"] == "byType" for p in o["properties"]}
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = ["<table><tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in columns) + "</tr>"]
    for row in rows[:40]:
        cells = []
        for key in columns:
            value, own = row.get(key), units.get(key, {})
            text, color = mapped(value, own.get("mappings", defaults["mappings"]))
            if text is None:
                unit = own.get("unit", defaults.get("unit", "short"))
                text = human(value, unit) if isinstance(value, float) else ("" if value is None else str(value))
                steps = own.get("thresholds", {}).get("steps")
                color = color_of(value, steps) if steps and isinstance(value, float) else None
            filled = color and (own.get("custom.cellOptions") or by_type.get("custom.cellOptions", {})).get("type") == "color-background"
            style = f"background:{color};color:{contrast(color)}" if filled else f'color:{color or "inherit"}'
            cells.append(f'<td style="{style}">{html.escape(text)}</td>')
        out.append("<tr>" + "".join(cells) + "</tr>")
    return "".join(out) + "</table>"


def states(panel, lines):
    out = []
    for name, points in lines[:16]:
        begin = time.time() - SPAN
        bars = []
        for t, v in points:
            text, color = mapped(v, panel["fieldConfig"]["defaults"]["mappings"])
            bars.append(f'<rect x="{(t - begin) / SPAN * 500:.1f}" y="0" width="{STEP / SPAN * 500 + 0.5:.1f}" height="14" fill="{color or "#888"}"><title>{text}</title></rect>')
        out.append(f'<div class="state"><span>{html.escape(name)}</span><svg viewBox="0 0 500 14" preserveAspectRatio="none" height="14" style="flex:1">{"".join(bars)}</svg></div>')
    return "".join(out)


def draw(panel, base, values, empty, board):
    kind, defaults = panel["type"], panel["fieldConfig"]["defaults"]
    unit = defaults.get("unit", "short")
    lines, results = [], []
    for target in panel["targets"]:
        expr = filled(target["expr"], values)
        if target["instant"]:
            result = ask(base, "query", query=expr)["result"]
            results.append(result)
        else:
            now = time.time()
            result = ask(base, "query_range", query=expr, start=now - SPAN, end=now, step=STEP)["result"]
            for one in result:
                lines.append((legend(target["legendFormat"], one["metric"]), [(t, float(v)) for t, v in one["values"]]))
        if not any(not math.isnan(float(value)) for one in result for _, value in one.get("values", [one.get("value")])):
            empty.append((board, panel["title"], target["expr"]))
    if kind == "timeseries":
        fixed = {o["matcher"]["options"]: p["value"]["fixedColor"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"] if p["id"] == "color"}
        stacked = defaults["custom"]["stacking"]["mode"] == "normal"
        body = plot(lines, unit, stacked, 560 if panel["gridPos"]["w"] > 8 else 360, 150, defaults.get("decimals"), fixed) if lines else ""
    elif kind == "state-timeline":
        body = states(panel, lines)
    elif kind == "table":
        body = table(panel, results)
    elif kind == "stat":
        found = results[0]
        if found:
            value = float(found[0]["value"][1])
            text, color = mapped(value, defaults["mappings"])
            if panel["options"]["textMode"] == "name":
                text = ", ".join(legend(panel["targets"][0]["legendFormat"], one["metric"]) for one in found)
            color = color or color_of(value, defaults["thresholds"]["steps"])
            body = f'<div class="stat" style="color:{color}">{html.escape(text or human(value, unit, defaults.get("decimals")))}</div>'
        else:
            body = f'<div class="stat none">{html.escape(defaults.get("noValue", "no data"))}</div>'
    else:
        rows = sorted(((legend(panel["targets"][0]["legendFormat"], one["metric"]), float(one["value"][1])) for one in results[0]), key=lambda row: row[1])
        top = max((v for _, v in rows), default=1) or 1
        body = "".join(f'<div class="bar"><span>{html.escape(name)}</span><i style="width:{v / top * 300:.0f}px;background:{color_of(v, defaults["thresholds"]["steps"])}"></i>{human(v, unit)}</div>' for name, v in rows)
    return body or f'<p class="none">{html.escape(str(defaults.get("noValue", "no data")))}</p>'


STYLE = """body{font:13px system-ui,sans-serif;margin:12px;background:#f4f5f7;color:#222;width:1240px}
h2{font-size:15px;margin:14px 0 6px}section{display:grid;grid-template-columns:repeat(24,1fr);gap:8px}
article{background:#fff;border:1px solid #ddd;border-radius:4px;padding:8px;overflow:hidden;min-width:0}
h3{font-size:13px;margin:0 0 2px}small{color:#777;display:block;margin-bottom:4px}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:2px 6px;border-bottom:1px solid #eee;font-size:12px}
.axis{font-size:9px;fill:#888}.legend{font-size:11px}.legend i{display:inline-block;width:10px;height:10px;margin-right:4px}
.stat{font-size:26px;font-weight:600}.none{color:#888}.state{margin:2px 0}.bar,.state{white-space:nowrap;display:flex;gap:6px;align-items:center;font-size:12px}
.bar span,.state span{width:190px;overflow:hidden;white-space:nowrap;text-overflow:ellipsis}.bar i{height:12px;display:inline-block}"""


def values_of(base, query, values):
    """What Grafana offers for a variable."""
    selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
    found = ask(base, "series", **{"match[]": filled(selector, values)})
    return sorted({one[label] for one in found if label in one})


def main():
    global SPAN
    base, out, SPAN = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    values = {"cluster": ".*", "node": ".*", "registry": ".*", **dict(pair.split("=", 1) for pair in sys.argv[4:])}
    empty, asked, variables = [], [], []
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        parts = [f"<!doctype html><meta charset=utf-8><title>{board['title']}</title><style>{STYLE}</style><h1>{board['title']}</h1><section>"]
        for panel in board["panels"]:
            if panel["type"] == "row":
                parts.append(f"</section><h2>{html.escape(panel['title'])}</h2><section>")
                continue
            asked += [(path.stem, panel["title"], target["expr"]) for target in panel["targets"]]
            body = draw(panel, base, values, empty, path.stem)
            parts.append(f'<article style="grid-column:span {panel["gridPos"]["w"]}"><h3>{html.escape(panel["title"])}</h3><small>{html.escape(panel["description"])}</small>{body}</article>')
        (out / f"{path.stem}.html").write_text("".join(parts) + "</section>")
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                variables.append((path.stem, variable["name"], values_of(base, variable["query"]["query"], values)))
    print(json.dumps({"asked": asked, "empty": empty, "variables": variables}, indent=1))


main()
