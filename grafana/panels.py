"""The content of the dashboards: each is a list of rows of panels. build.py defines how panels look.

Gauges about a partition come from the janitor whose turn it is, and a scrape may fall between two turns. The queries
therefore take the last value of each janitor and the maximum of these. Gauges that can be added are summed over
partitions. Counters and histograms are summed over processes.
"""

from dataclasses import dataclass, field
from functools import partial

OURS = 'job=~"$job", instance=~"$instance"'
GREEN = [("green", None)]


@dataclass
class Panel:
    """A graph over time, or the latest value."""

    title: str
    unit: str
    text: str
    queries: list
    runbooks: list = field(default_factory=list)
    thresholds: list = field(default_factory=lambda: GREEN)
    kind: str = "timeseries"
    stacked: bool = False
    most: float | None = None
    # What an empty panel means, if `emptiness` does not apply.
    empty: str | None = None


def emptiness(panel):
    """The text of an empty panel. Counters and gauges exist as soon as their process does."""
    asked = panel.queries[0][0]
    kinds = [
        ("last_over_time(rollcall_redis_", "no janitor measures this, or it lacks the right to ask (INFO)"),
        ("last_over_time(", "no janitor measures this"),
        ("histogram_quantile(", "none in the time shown"),
        ("rollcall_sweep_", "no janitor is scraped"),
        ("rollcall_entries_lost_", "no janitor is scraped"),
        ("rollcall_entries_", "no worker is scraped"),
        ("rollcall_events_", "no worker is scraped"),
        ("rollcall_operations_", "no worker is scraped"),
        ("rollcall_partition_", "no worker is scraped"),
        ("rollcall_takeovers_", "no worker is scraped"),
        ("rollcall_group_interferences_", "no worker is scraped"),
    ]
    return panel.empty or next((text for part, text in kinds if part in asked), "no process is scraped")


graph = Panel
stat = partial(Panel, kind="stat")


def red_from(at):
    """Green below this value, red from it upwards."""
    return [("green", None), ("red", at)]


def grows_worse(yellow, red):
    """Green, then yellow from the first value upwards, red from the second."""
    return [("green", None), ("yellow", yellow), ("red", red)]


def sum_by(labels):
    """`sum`, grouped by these labels if there are any."""
    return f"sum by ({labels}) " if labels else "sum"


def rate(metric, by=""):
    """A counter's increase per second, summed over processes."""
    return f"{sum_by(by)}(rate({metric}{{{OURS}}}[$__rate_interval]))"


def increase(metric, by=""):
    """A counter's increase over the time shown."""
    return f"{sum_by(by)}(increase({metric}{{{OURS}}}[$__range]))"


def quantile(part, metric, by=""):
    """The value below which this fraction of the measurements lies."""
    labels = ", ".join(label for label in ("le", by) if label)
    return f"histogram_quantile({part}, sum by ({labels}) (rate({metric}_bucket{{{OURS}}}[$__rate_interval])))"


def quantiles(metric):
    """The median, the 99th and the 99.9th percentile."""
    return [(quantile(part, metric), name) for part, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))]


def worst(metric, by="job, partition", more=""):
    """A gauge measured by janitors, for each partition."""
    return f'max by ({by}) (last_over_time({metric}{{{OURS}, partition=~"$partition"{more}}}[$__rate_interval]))'


def total(metric, by="", more=""):
    """A gauge measured by janitors, summed over partitions."""
    inner = ", ".join(label for label in ("job", "partition", by) if label)
    return f"{sum_by(by)}({worst(metric, inner, more)})"


def each(metric):
    """A gauge of each process."""
    return f"max by (instance) ({metric}{{{OURS}}})"


def held(metric, by):
    """A gauge about the roles of workers in partitions, summed by these labels."""
    return f'{sum_by(by)}({metric}{{{OURS}, partition=~"$partition"}})'


def in_time(window):
    """The fraction of the entries applied within a second. Prometheus 3 writes the bucket as 1.0."""
    bucket = f'rollcall_event_age_seconds_bucket{{{OURS}, le=~"1|1\\\\.0"}}'
    count = f"rollcall_event_age_seconds_count{{{OURS}}}"
    return f"sum(increase({bucket}[{window}])) / sum(increase({count}[{window}]))"


MEMBERS, LIMIT = "rollcall_structure_members", "rollcall_structure_limit_members"

OVERVIEW = [
    [
        stat("Online", "short", "Current presence entries. A user at two addresses counts twice.",
             [(total(MEMBERS, more=', structure="presence"'), "")]),
        stat("Applied within a second", "percentunit",
             "Entries applied within a second of being added, in the time shown. The objective is 99.9 %.",
             [(in_time("$__range"), "")], ["RollcallEventsLateFast", "RollcallEventsLateSlow"],
             [("red", None), ("yellow", 0.999), ("green", 0.9995)], most=1, empty="no entry was applied"),
        stat("Longest wait", "s", "Age of the oldest entry that has not been applied yet.",
             [(f'max({worst("rollcall_oldest_undelivered_seconds")})', "")], ["RollcallNoProgress", "RollcallBacklogGrows"],
             grows_worse(10, 30)),
        stat("Without an owner", "short", "Partitions that no worker owns, or whose owner shows no sign of life.",
             [(total("rollcall_partition_unowned"), "")], ["RollcallPartitionUnowned"], red_from(1)),
        stat("Dead letters", "short", "Events that became dead letters in the time shown.",
             [(increase("rollcall_events_rejected_total"), "")], ["RollcallDeadLetters", "RollcallPoison"],
             grows_worse(1, 1000)),
        stat("Entries lost", "short", "Entries that were gone before they were applied, in the time shown.",
             [(increase("rollcall_entries_lost_total"), "")], ["RollcallEntriesLost"], red_from(1)),
    ],
    [
        graph("Event age", "s", "Time from adding an entry until it is applied. The line marks the objective, one second.",
              quantiles("rollcall_event_age_seconds"), ["RollcallEventsLateFast"], red_from(1)),
        graph("Burn rate", "short", "Fraction of late entries as a multiple of the 0.1 % that the objective allows. At 1 the "
              "error budget lasts exactly a month; the alerts fire at 6 and 14.4.",
              [(f"(1 - {in_time('1h')}) / 0.001", "last hour"),
               (f"(1 - {in_time('$__rate_interval')}) / 0.001", "now")],
              ["RollcallEventsLateFast", "RollcallEventsLateSlow"], grows_worse(6, 14.4), empty="no entry was applied"),
    ],
    [
        graph("Events applied", "cps", "Events that took effect, by type.",
              [(rate("rollcall_events_applied_total", "type"), "{{type}}")], stacked=True),
        graph("Not applied", "cps", "Events that became dead letters, by reason; entries lost, by cause; and operations that "
              "had expired before they were applied.",
              [(rate("rollcall_events_rejected_total", "reason"), "{{reason}}"),
               (rate("rollcall_entries_lost_total", "cause"), "lost: {{cause}}"),
               (rate("rollcall_operations_late_total"), "late")],
              ["RollcallDeadLetters", "RollcallEntriesLost"]),
    ],
    [
        graph("Backlog", "short", "Entries that have not been applied yet, counted by the server.",
              [(total("rollcall_undelivered_entries"), "")], ["RollcallBacklogGrows"],
              empty="the server does not know, or no janitor measures this"),
        graph("Redis errors", "cps", "Failed steps, by kind. Each step is tried again.",
              [(rate("rollcall_redis_errors_total", "kind"), "{{kind}}")], ["RollcallRedisErrors"]),
    ],
    [
        graph("Live state", "short", "Members of each structure. presence is who is online; seen_this_minute starts at zero each minute.",
              [(total(MEMBERS, "structure", ', structure!~"ended_.+|dead_letters|changes"'), "{{structure}}")]),
        graph("Changes", "cps", "Transitions caused by events and sweeps, by kind.",
              [(rate("rollcall_changes_total", "kind"), "{{kind}}")]),
    ],
]

WORKERS = [
    [
        graph("Processes", "short", "Scraped processes, by version. Several versions mean that a rollout is in progress.",
              [(f"count by (version) (rollcall_build_info{{{OURS}}})", "{{version}}")], ["RollcallProcessDown"]),
        graph("Uptime", "s", "Time since each process started. A sawtooth means that it keeps restarting.",
              [(f"time() - {each('process_start_time_seconds')}", "{{instance}}")], ["RollcallRestarts"]),
    ],
    [
        graph("Partitions owned", "short", "Partitions whose entries each worker applies. Each partition has one owner.",
              [(held("rollcall_partition_owned", "instance"), "{{instance}}")], ["RollcallPartitionUnowned"], stacked=True),
        graph("Partitions on standby", "short", "Partitions whose owner each worker watches, to take over if it fails.",
              [(held("rollcall_partition_standby", "instance"), "{{instance}}")], ["RollcallTakeovers"], stacked=True),
        graph("Takeovers", "cps", "Partitions that workers took, by cause: free (nobody owned it), again (the owner itself started "
              "over after a failure), stall (the owner made no progress), death (the owner's process was gone).",
              [(rate("rollcall_takeovers_total", "cause"), "{{cause}}")], ["RollcallTakeovers", "RollcallRestarts"]),
    ],
    [
        graph("Entries applied", "cps", "Entries that each worker applied or wrote off.",
              [(rate("rollcall_entries_applied_total", "instance"), "{{instance}}")], ["RollcallNoProgress"]),
        graph("Entries read", "cps", "Entries that workers read (after failures, more than they apply), and entries tried alone "
              "because a worker or the server may have died on them.",
              [(rate("rollcall_entries_read_total"), "read"),
               (rate("rollcall_entries_tried_alone_total"), "tried alone")], ["RollcallPoison"]),
        graph("Bytes read", "Bps", "Bytes in the fields of the entries that each worker read.",
              [(rate("rollcall_read_bytes_total", "instance"), "{{instance}}")]),
    ],
    [
        graph("Apply call", "s", "Time of one apply call including the round trip, by worker: p99.",
              [(quantile(0.99, "rollcall_apply_duration_seconds", "instance"), "{{instance}}")],
              ["RollcallEventsLateFast"], red_from(1)),
        graph("Decode and fold", "s", "Time to decode and fold the entries of one call, by worker: p99.",
              [(quantile(0.99, "rollcall_fold_duration_seconds", "instance"), "{{instance}}")]),
        graph("Read of new entries", "s",
              "Time of one read including the wait for the first entry, by worker: p99. High when there is little to do.",
              [(quantile(0.99, "rollcall_read_duration_seconds", "instance"), "{{instance}}")]),
    ],
    [
        graph("Entries per call", "short", "Entries applied in one call. A value near --batch means that the worker is behind.",
              quantiles("rollcall_batch_entries")),
        graph("Entries by form", "cps", "How producers write their entries. A packed entry holds many events.",
              [(rate("rollcall_entries_decoded_total", "form"), "{{form}}")], stacked=True),
        graph("Events decoded", "cps", "Events decoded from entries, by type. After failures, more than were applied.",
              [(rate("rollcall_events_decoded_total", "type"), "{{type}}")], stacked=True),
    ],
    [
        graph("Merge operations", "cps", "Operations applied, by projection. Folding a batch gives fewer operations than events.",
              [(rate("rollcall_operations_applied_total", "projection"), "{{projection}}")], stacked=True),
        graph("Processor", "percentunit", "Processor time used by each process. 100 % is one core.",
              [(rate("process_cpu_seconds_total", "instance"), "{{instance}}")]),
        graph("Memory", "bytes", "Resident memory of each process.",
              [(each("process_resident_memory_bytes"), "{{instance}}")]),
    ],
    [
        graph("Open files", "percentunit", "Open file descriptors as a fraction of the process's limit.",
              [(f"{each('process_open_fds')} / {each('process_max_fds')}", "{{instance}}")], thresholds=red_from(0.8)),
        graph("Threads and tasks", "short", "Threads of the runtime, and tasks that have not ended. Neither should keep growing.",
              [(each("rollcall_runtime_workers"), "{{instance}} threads"),
               (each("rollcall_runtime_alive_tasks"), "{{instance}} tasks")]),
        graph("Queued tasks", "short", "Tasks waiting for a thread. If this stays above 0, the process has too few processors.",
              [(each("rollcall_runtime_queued_tasks"), "{{instance}}")]),
        graph("Log lines lost", "cps", "Lines dropped because standard error was not read fast enough. Work is not affected; check the "
              "log collector.",
              [(rate("rollcall_log_lines_lost_total", "instance"), "{{instance}}")]),
    ],
]

STREAMS = [
    [
        stat("Group missing", "short", "Partitions whose stream or consumer group does not exist.",
             [(total("rollcall_group_missing"), "")], ["RollcallGroupMissing"], red_from(1)),
        stat("Count trusted", "bool_yes_no", "Whether the count of waiting entries is reliable in every partition. "
             "After deletions it can be wrong; then use the age instead.",
             [(f'min({worst("rollcall_undelivered_trusted")})', "")], thresholds=[("yellow", None), ("green", 1)]),
        stat("Clock ahead", "s", "How far the newest entry's id is ahead of the server's clock, in the worst partition.",
             [(f'max({worst("rollcall_stream_clock_ahead_seconds")})', "")], ["RollcallStreamClockAhead"],
             grows_worse(1, 10)),
        stat("Without an owner", "short", "Partitions that no worker owns, or whose owner shows no sign of life.",
             [(total("rollcall_partition_unowned"), "")], ["RollcallPartitionUnowned"], red_from(1)),
    ],
    [
        graph("Age of the oldest waiting entry", "s", "Age of the oldest entry not applied yet, by the server's clock. If it grows, the "
              "owner is falling behind.",
              [(worst("rollcall_oldest_undelivered_seconds"), "{{job}} partition {{partition}}")],
              ["RollcallBacklogGrows", "RollcallNoProgress"], grows_worse(10, 30)),
        graph("Waiting entries", "short", "Entries not applied yet, counted by the server. Missing while the server does not know.",
              [(worst("rollcall_undelivered_entries"), "{{job}} partition {{partition}}")], ["RollcallBacklogGrows"],
              empty="the server does not know, or no janitor measures this"),
        graph("Entries in the stream", "short", "All entries of each stream, including finished ones, which stay for --keep.",
              [(worst("rollcall_stream_entries"), "{{job}} partition {{partition}}")], ["RollcallTrimBlocked"]),
    ],
    [
        graph("Read and applied", "cps", "Entries that workers read, and entries that they applied. The two should be equal.",
              [(rate("rollcall_entries_read_total"), "read"), (rate("rollcall_entries_applied_total"), "applied")],
              ["RollcallNoProgress"]),
        graph("Owner and standbys", "short", "Each partition has 1 owner, and standbys that would take over. Without a standby a partition "
              "waits until its worker is back.",
              [(held("rollcall_partition_owned", "job, partition"), "owner of {{job}} partition {{partition}}"),
               (held("rollcall_partition_standby", "job, partition"), "standbys of {{job}} partition {{partition}}")],
              ["RollcallPartitionUnowned"]),
        graph("Term", "short", "How often each partition has been taken. Each step is a new owner, or a new session of the same owner.",
              [(f'max by (job, partition) (rollcall_partition_term{{{OURS}, partition=~"$partition"}})',
                "{{job}} partition {{partition}}")], ["RollcallTakeovers"]),
        graph("Interference", "cps", "What other programs did to the consumer group and workers repaired: reading through it, moving it, "
              "destroying it. Nothing is lost.",
              [(rate("rollcall_group_interferences_total"), "")], ["RollcallGroupInterference"]),
    ],
    [
        graph("Dead letters", "cps", "Events that became dead letters, by reason.",
              [(rate("rollcall_events_rejected_total", "reason"), "{{reason}}")],
              ["RollcallDeadLetters", "RollcallPoison"], stacked=True),
        graph("Dropped by their caps", "cps",
              "Old dead letters and changes that were dropped to make room for new ones. For changes this is normal.",
              [(rate("rollcall_dead_letters_dropped_total"), "dead letters"),
               (rate("rollcall_changes_dropped_total"), "changes")], ["RollcallLimitReached"]),
        graph("Times in the future or too late", "cps", "Events whose time was reduced to the allowed skew because a "
              "producer's clock is ahead, and operations that had expired when they were applied.",
              [(rate("rollcall_events_from_future_total"), "from the future"),
               (rate("rollcall_operations_late_total"), "late")], ["RollcallStreamClockAhead"]),
        graph("Forwarded", "cps", "Entries that producers still send to the streams of an old number of partitions. Once there are none, "
              "all producers have switched.",
              [(rate("rollcall_entries_forwarded_total"), "forwarded")]),
        graph("Unknown members", "cps", "Members of applied events that no event type has, by the event's type; often a misspelt "
              "name. Workers log the names at level debug.",
              [(rate("rollcall_events_unknown_members_total", "type"), "{{type}}")], stacked=True),
        graph("Blocked events", "cps", "Events of users who were erased with rollcall erase --block. They have no effect.",
              [(rate("rollcall_events_blocked_total"), "blocked users")]),
    ],
]

JANITOR = [
    [
        stat("Last round", "s", "Time since a janitor last finished a round of sweeps, in the worst partition.",
             [(f'max(time() - {worst("rollcall_sweep_last_success_timestamp_seconds")})', "")],
             ["RollcallJanitorNotRunning"], grows_worse(30, 120)),
        stat("Trimming blocked", "short", "Partitions whose stream cannot be trimmed, counted once for each kind of consumer group.",
             [(f'sum({worst("rollcall_trim_blocked", "job, partition, by")})', "")], ["RollcallTrimBlocked"],
             grows_worse(1, 2)),
        stat("Horizon used", "percentunit", "Age of the oldest unfinished entry as a fraction of the horizon, in the worst partition. At "
             "100 % an ended session or token may come back.",
             [(f'max({worst("rollcall_horizon_used_ratio")})', "")], ["RollcallHorizonNear"], grows_worse(0.25, 0.5)),
        stat("Unfinished sweeps", "short", "Sweeps whose last round ran out of time and left something to remove.",
             [(f'sum({worst("rollcall_sweep_unfinished", "job, partition, sweep")})', "")], thresholds=grows_worse(1, 4)),
    ],
    [
        graph("Used of the caps", "percentunit", "Members of each structure as a fraction of its cap. For the changes 100 % is normal.",
              [(f'{worst(MEMBERS, "job, partition, structure")} / {worst(LIMIT, "job, partition, structure")}',
                "{{structure}} of {{job}} partition {{partition}}")], ["RollcallLimitReached"], grows_worse(0.9, 1)),
        graph("Members", "short", "Members of each structure, over all partitions.",
              [(total(MEMBERS, "structure"), "{{structure}}")]),
    ],
    [
        graph("Removed", "cps", "Members that janitors removed, by sweep.",
              [(rate("rollcall_sweep_removed_total", "sweep"), "{{sweep}}")], stacked=True),
        graph("Repairs", "short", "Repairs of damage by other programs or by a clock that went back, in each "
              "interval shown.",
              [(f'sum by (repair) (increase(rollcall_repairs_total{{{OURS}}}[$__rate_interval]))', "{{repair}}")],
              ["RollcallForeignWrites"]),
        graph("Unfinished sweeps", "short", "Sweeps that ran out of time. If this lasts, the janitor does not keep up.",
              [(worst("rollcall_sweep_unfinished", "job, partition, sweep"), "{{sweep}} of {{job}} partition {{partition}}")],
              stacked=True),
    ],
    [
        graph("Round of sweeps", "s", "Time of a round of sweeps over all structures of a partition.",
              quantiles("rollcall_sweep_round_duration_seconds"), ["RollcallJanitorNotRunning"], red_from(60)),
        graph("Sweep call", "s", "Time of one sweep call including the round trip. Redis serves no other client while it runs the call.",
              quantiles("rollcall_sweep_duration_seconds"), thresholds=red_from(0.1)),
        graph("Horizon", "percentunit", "Age of the oldest unfinished entry as a fraction of the horizon.",
              [(worst("rollcall_horizon_used_ratio"), "{{job}} partition {{partition}}")], ["RollcallHorizonNear"],
              grows_worse(0.25, 0.5)),
    ],
    [
        graph("Time since the last round", "s", "Time since a janitor last finished a round of sweeps, by partition.",
              [(f'time() - {worst("rollcall_sweep_last_success_timestamp_seconds")}', "{{job}} partition {{partition}}")],
              ["RollcallJanitorNotRunning"], grows_worse(30, 120)),
        graph("Trimming blocked", "bool_yes_no", "Which consumer groups keep entries older than --keep from being trimmed.",
              [(worst("rollcall_trim_blocked", "job, partition, by"), "{{by}} in {{job}} partition {{partition}}")],
              ["RollcallTrimBlocked"]),
    ],
]

REDIS = [
    [
        stat("Eviction policy wrong", "short", "Partitions whose server may evict the stream and the state.",
             [(total("rollcall_redis_eviction_policy_fault"), "")], ["RollcallEvictionPolicyWrong"], red_from(1)),
        stat("Keys evicted", "short", "Keys evicted since the servers started. Each may have been the stream, its group, or state.",
             [(total("rollcall_redis_evicted_keys"), "")], ["RollcallEvictionPolicyWrong"], red_from(1)),
        stat("Memory used", "percentunit", "Used memory as a fraction of maxmemory, on the fullest server.",
             [(f'max({worst("rollcall_redis_used_memory_bytes")} / ({worst("rollcall_redis_maxmemory_bytes")} > 0))', "")],
             ["RollcallRedisMemoryFull"], grows_worse(0.75, 0.9), empty="no maxmemory is set, or no janitor measures this"),
        stat("Writes go to a primary", "bool_yes_no", "Whether the server of every partition is a primary.",
             [(f'min({worst("rollcall_redis_primary")})', "")], ["RollcallRedisErrors"],
             [("red", None), ("green", 1)]),
    ],
    [
        graph("Memory", "bytes", "Used memory, and the limit (0 if none is set).",
              [(worst("rollcall_redis_used_memory_bytes"), "used, {{job}} partition {{partition}}"),
               (worst("rollcall_redis_maxmemory_bytes"), "maxmemory, {{job}} partition {{partition}}")],
              ["RollcallRedisMemoryFull"]),
        graph("Replication", "short", "Replicas connected to each partition's server, and whether a replica is connected to its primary "
              "(always 1 on a primary).",
              [(worst("rollcall_redis_connected_replicas"), "replicas, {{job}} partition {{partition}}"),
               (worst("rollcall_redis_replication_link_up"), "link up, {{job}} partition {{partition}}")],
              ["RollcallRedisErrors"]),
    ],
    [
        graph("Round trips", "cps", "Calls to Redis in regular work, by stage.",
              [(rate("rollcall_redis_round_trips_total", "stage"), "{{stage}}")], stacked=True),
        graph("Calls", "s", "Time of apply and sweep calls including the round trip: p99.",
              [(quantile(0.99, "rollcall_apply_duration_seconds"), "apply"),
               (quantile(0.99, "rollcall_sweep_duration_seconds"), "sweep")], thresholds=red_from(1)),
    ],
    [
        graph("Errors", "cps", "Steps that the server or the connection failed, by kind.",
              [(rate("rollcall_redis_errors_total", "kind"), "{{kind}}")], ["RollcallRedisErrors"], stacked=True),
        graph("Connections", "cps", "Connections opened by loops, by role. Each one after a loop's first is a reconnect.",
              [(rate("rollcall_redis_connects_total", "role"), "{{role}}")], ["RollcallRedisErrors"]),
    ],
]

REQUESTS, ANSWER_TIME = "rollcall_http_requests_total", "rollcall_http_request_duration_seconds"
REFUSED_NOW = 'rollcall_intake_refused_total{%s, reason=~"buffer_full|redis_away|in_doubt|redis_refuses"}' % OURS
# 0 without requests, rather than empty.
FAILED_PART = (f'sum(rate({REQUESTS}{{{OURS}, class="5xx"}}[$__rate_interval]))'
               f' / clamp_min(sum(rate({REQUESTS}{{{OURS}}}[$__rate_interval])), 1e-9)')


def quantile_or_none(part, metric):
    """The value below which this fraction of the measurements lies; 0 while there are none."""
    return f"({quantile(part, metric)} >= 0) or vector(0)"


SERVE = [
    [
        stat("Requests", "reqps", "Requests from applications and browsers that were answered, per second.",
             [(rate(REQUESTS), "")]),
        stat("Failed", "percentunit", "Fraction of the requests that were answered with a 5xx.",
             [(FAILED_PART, "")], ["RollcallServeErrors"], grows_worse(0.001, 0.01)),
        stat("Answered within", "s", "99 % of the responses took less time than this. For events it includes --linger.",
             [(quantile_or_none(0.99, ANSWER_TIME), "")], ["RollcallServeSlow"], grows_worse(0.1, 0.5)),
        stat("Buffer", "percentunit", "Used fraction of the buffer for events that wait for Redis, in the fullest process.",
             [(f"max(rollcall_intake_buffer_used_ratio{{{OURS}}})", "")], ["RollcallIntakeBufferFills"],
             grows_worse(0.25, 0.5)),
        stat("Events not added", "short", "Events that were not added because of Redis, or may not have been, in the time shown.",
             [(f"sum(increase({REFUSED_NOW}[$__range]))", "")], ["RollcallIntakeRefuses"], red_from(1)),
    ],
    [
        graph("Requests by route", "reqps", "Requests answered, by route.",
              [(rate(REQUESTS, "route"), "{{route}}")], stacked=True),
        graph("Answers by class", "reqps", "Requests answered, by class of the status code.",
              [(rate(REQUESTS, "class"), "{{class}}")], ["RollcallServeErrors"], stacked=True),
    ],
    [
        graph("Time to answer", "s", "Time from a request's headers to the response's headers, without the live feed.",
              [(quantile_or_none(part, ANSWER_TIME), name) for part, name in ((0.5, "p50"), (0.99, "99 %"), (0.999, "99.9 %"))],
              ["RollcallServeSlow"], red_from(0.5)),
        graph("Time to add", "s", "Time to add one entry of packed events to the stream, including the round trip.",
              [(quantile_or_none(part, "rollcall_intake_add_duration_seconds"), name)
               for part, name in ((0.5, "p50"), (0.99, "99 %"))], ["RollcallIntakeBufferFills"]),
    ],
    [
        graph("Events accepted", "cps", "Events from applications and browsers that were added to the stream.",
              [(rate("rollcall_intake_events_total"), "accepted")]),
        graph("Events refused", "cps", "Events that were not added to the stream, or may not have been, by reason.",
              [(rate("rollcall_intake_refused_total", "reason"), "{{reason}}")], ["RollcallIntakeRefuses"], stacked=True),
        graph("Events waiting", "short", "Events waiting to be added to the stream, by process.",
              [(each("rollcall_intake_buffered_events"), "{{instance}}")], ["RollcallIntakeBufferFills"]),
    ],
    [
        graph("Connections", "short", "Open connections: all of them (http), and those of listeners (sse, socketio).",
              [(f"sum by (kind) (rollcall_http_connections{{{OURS}}})", "{{kind}}")]),
        graph("Connections refused", "cps", "Connections closed at once because too many were open, in total or from one address.",
              [(rate("rollcall_http_connections_refused_total"), "refused")]),
    ],
    [
        graph("Changes read", "cps", "Changes that the live feed read, per second.",
              [(rate("rollcall_feed_changes_total"), "changes")]),
        graph("Age of changes", "s", "Age of a change when listeners can get it: the process's clock minus the server's time.",
              [(quantile_or_none(part, "rollcall_feed_delay_seconds"), name) for part, name in ((0.5, "p50"), (0.99, "99 %"))]),
        graph("Snapshot time", "s", "Time to gather a snapshot of the state for listeners.",
              [(quantile_or_none(part, "rollcall_snapshot_duration_seconds"), name)
               for part, name in ((0.5, "p50"), (0.99, "99 %"))]),
    ],
    [
        graph("Gaps and failed snapshots", "cps",
              "Times that changes were gone before the feed read them, and snapshots that could not be gathered.",
              [(rate("rollcall_feed_gaps_total"), "gaps"), (rate("rollcall_snapshots_failed_total"), "failed snapshots")],
              stacked=True),
        graph("Listeners dropped", "cps", "Listeners that were disconnected, by reason.",
              [(rate("rollcall_listeners_dropped_total", "reason"), "{{reason}}")], ["RollcallListenersDropped"], stacked=True),
        graph("Activities sent", "cps", "Activities sent to rooms.",
              [(rate("rollcall_activity_told_total"), "sent")]),
        graph("Activities left out", "cps", "Activities not sent to rooms, by reason.",
              [(rate("rollcall_activity_left_out_total", "reason"), "{{reason}}")], stacked=True),
    ],
    [
        graph("Lag of targets", "s", "Age of the oldest change not yet sent to a notifier's target, by target.",
              [(worst("rollcall_notifier_lag_seconds", "target"), "{{target}}")], ["RollcallNotifierLags"],
              grows_worse(10, 60), empty="no notifier has a target"),
        graph("Changes sent to targets", "cps", "Changes sent to targets, or left out by their filters, by target.",
              [(rate("rollcall_notifier_changes_total", "target"), "{{target}}")], empty="no notifier is scraped"),
        graph("Failed calls and gaps", "cps",
              "Webhook calls that were not accepted and are repeated, and gaps: changes lost before they were sent.",
              [(rate("rollcall_notifier_calls_failed_total", "target"), "{{target}}: calls"),
               (rate("rollcall_notifier_gaps_total", "target"), "{{target}}: gaps")], empty="no notifier is scraped"),
    ],
]

DASHBOARDS = [
    ("overview", "Overview", "Is Rollcall working, and is it in time?", OVERVIEW),
    ("workers", "Workers", "What does each process do, and what does it cost?", WORKERS),
    ("streams", "Streams and backlog", "What is waiting, for how long, and what was not applied?", STREAMS),
    ("janitor", "Janitor and limits", "Are stale members removed, and how full are the structures?", JANITOR),
    ("serve", "Serve", "What do applications and browsers get, and how fast?", SERVE),
    ("redis", "Redis for Rollcall", "Is the server healthy, and how does Rollcall use it?", REDIS),
]
