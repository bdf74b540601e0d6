#!/usr/bin/env python3
"""Writes the dashboards from panels.py and the runbooks. With `--check` it only reports which files differ.

It defines what all dashboards have in common: variables, links, annotations, and how panels look.
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from panels import DASHBOARDS, emptiness  # noqa: E402

HERE = Path(__file__).parent
RUNBOOKS = sorted(path.stem for path in HERE.glob("runbooks/*.md"))
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def variable(name, label, query):
    """A variable with values from Prometheus; by default, all of them."""
    return {
        "type": "query", "name": name, "label": label, "datasource": SOURCE, "definition": query,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 3,
        "includeAll": True, "multi": True, "allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]},
    }


VARIABLES = [
    {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus",
     "current": {"text": "default", "value": "default"}},
    variable("job", "job", "label_values(rollcall_build_info, job)"),
    variable("instance", "instance", 'label_values(rollcall_build_info{job=~"$job"}, instance)'),
    variable("partition", "partition", 'label_values(rollcall_stream_entries{job=~"$job"}, partition)'),
]

STARTS = {
    "name": "Process starts", "datasource": SOURCE, "enable": True, "iconColor": "blue", "step": "60s",
    "expr": 'process_start_time_seconds{job=~"$job", instance=~"$instance"} * 1000',
    "useValueForTime": True, "titleFormat": "{{instance}} started", "tagKeys": "job",
}

LINKS = [{"type": "dashboards", "title": "Rollcall", "tags": ["rollcall"], "asDropdown": False,
          "includeVars": True, "keepTime": True, "icon": "external link", "targetBlank": False}]


def runbook_link(alert):
    """A link from a panel to the runbook, which is a panel of the last dashboard."""
    number = RUNBOOKS.index(alert) + 1
    return {"title": f"Runbook {alert}", "url": f"/d/rollcall-runbooks/?viewPanel={number}"}


def steps(thresholds):
    """`[("green", None), ("red", 1)]`, in Grafana's format."""
    return {"mode": "absolute", "steps": [{"color": color, "value": at} for color, at in thresholds]}


def target(n, expr, legend):
    """A query of a panel. A query over the whole time range is evaluated once, any other for each point."""
    once = "$__range" in expr
    return {"refId": "ABCDEFGH"[n], "datasource": SOURCE, "expr": expr, "legendFormat": legend or "__auto",
            "range": not once, "instant": once}


def look_of_stat():
    """The latest value, coloured by thresholds."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
               "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    return options, {"color": {"mode": "thresholds"}}


def look_of_graph(panel):
    """Lines, or stacked areas, with thresholds as dashed lines."""
    options = {"legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    has_threshold = len(panel.thresholds) > 1
    return options, {"custom": {
        "fillOpacity": 20 if panel.stacked else 0, "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if has_threshold else "off"},
    }}


def draw(panel, number, place):
    """A panel with numbers."""
    options, look = look_of_stat() if panel.kind == "stat" else look_of_graph(panel)
    defaults = {"unit": panel.unit, "min": 0, "noValue": emptiness(panel),
                "thresholds": steps(panel.thresholds), **look}
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.text, "datasource": SOURCE,
        "gridPos": place, "links": [runbook_link(alert) for alert in panel.runbooks],
        "targets": [target(n, *query) for n, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
    }


def placed(rows):
    """Each panel, with its number and position. The panels of a row share its width."""
    number, top = 0, 0
    for row in rows:
        height = 4 if row[0].kind == "stat" else 8
        width = COLUMNS // len(row)
        for column, panel in enumerate(row):
            number += 1
            yield draw(panel, number, {"x": column * width, "y": top, "w": width, "h": height})
        top += height


def runbook_panels():
    """Each runbook as a text panel, so that it can be read next to the alert."""
    for n, name in enumerate(RUNBOOKS):
        text = (HERE / "runbooks" / f"{name}.md").read_text()
        for other, alert in enumerate(RUNBOOKS):
            text = text.replace(f"]({alert}.md)", f"](/d/rollcall-runbooks/?viewPanel={other + 1})")
        body = text.split("\n", 2)[2]
        yield {
            "id": n + 1, "type": "text", "title": name, "description": f"What to do about the alert {name}.",
            "gridPos": {"x": n % 2 * 12, "y": n // 2 * 12, "w": 12, "h": 12},
            "options": {"mode": "markdown", "content": body},
        }


def dashboard(uid, title, text, panels, variables):
    """A complete dashboard."""
    return {
        "uid": f"rollcall-{uid}", "title": f"Rollcall / {title}", "description": text, "tags": ["rollcall"],
        "schemaVersion": 39, "editable": False, "graphTooltip": 1, "timezone": "browser", "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"}, "links": LINKS,
        "templating": {"list": variables}, "annotations": {"list": [STARTS]}, "panels": panels,
    }


def dashboards():
    """Every file with its content."""
    built = [dashboard(uid, title, text, list(placed(rows)), VARIABLES) for uid, title, text, rows in DASHBOARDS]
    built.append(dashboard("runbooks", "Runbooks", "What each alert means, and what to do.",
                           list(runbook_panels()), VARIABLES))
    for one in built:
        yield HERE / "dashboards" / f"{one['uid']}.json", json.dumps(one, indent=1, ensure_ascii=False) + "\n"


def main():
    wanted = dict(dashboards())
    unknown = set(HERE.glob("dashboards/*.json")) - set(wanted)
    differing = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if sys.argv[1:] == ["--check"]:
        names = ", ".join(path.name for path in [*unknown, *differing])
        sys.exit(f"run grafana/build.py and commit: {names} differ from what it writes" if names else 0)
    for path in unknown:
        path.unlink()
    for path in differing:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
