/*
 * `varve log inspect`: what stands in a volume's log, segment by segment and batch by batch, where reading stops and
 * whether Varve would open it. Reads by shared/adapters/write-log/inspect.ts, changes nothing, works on damaged logs.
 */
import { type InspectedItem, inspectLog as readLog } from "#shared/adapters/write-log/inspect.ts";
import { errorBody } from "#shared/api/error-body.ts";
import type { Batch } from "#shared/domain/batch.ts";
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { ConfigReader } from "#shared/shell/config.ts";
import type { CommandLine } from "../command-line.ts";
import { pairs, printJson, printLine } from "../output.ts";
import { openVolumes } from "../single-machine.ts";

type Segment = Extract<InspectedItem, { kind: "segment" }>;
type LogRecord = Extract<InspectedItem, { kind: "record" }>;
type Stop = Extract<InspectedItem, { kind: "stop" }>;
type Summary = Extract<InspectedItem, { kind: "summary" }>;

const batchesDefault = 20;
/** Varve would refuse this log. */
const refusedExitCode = 1;

export async function inspectLog(line: CommandLine): Promise<number> {
  const config = new ConfigReader(line, "log inspect");
  const dataDirectory = config.dataDirectory();
  const fromLsn = config.count("from", 1, 1, Number.MAX_SAFE_INTEGER);
  const countMax = config.count("count", batchesDefault, 0, Number.MAX_SAFE_INTEGER);
  config.finish();
  const opened = await openVolumes({ dataDirectory, create: false });
  try {
    const { id, logPath } = opened.host.show(line.args[0] ?? "");
    const items = readLog({ store: opened.store, directory: logPath, volumeId: id, fromLsn });
    const report = line.values.has("json") ? new JsonReport(countMax) : new TextReport(countMax);
    for await (const item of items) report.add(item);
    report.end();
    return report.refused ? refusedExitCode : 0;
  } finally {
    await opened.close();
  }
}

abstract class Report {
  refused = false;
  private readonly countMax: number;
  private count = 0;

  constructor(countMax: number) {
    this.countMax = countMax;
  }

  add(item: InspectedItem): void {
    if (item.kind === "segment") this.segment(item);
    else if (item.kind === "stop") this.stop(item);
    else if (item.kind === "summary") {
      this.refused = item.refusal !== null;
      this.summary(item, Math.max(0, this.count - this.countMax));
    } else {
      this.count += 1;
      if (this.count <= this.countMax) this.record(item);
    }
  }

  end(): void {}

  protected abstract segment(item: Segment): void;
  protected abstract record(item: LogRecord): void;
  protected abstract stop(item: Stop): void;
  protected abstract summary(item: Summary, notShown: number): void;
}

class TextReport extends Report {
  protected segment(item: Segment): void {
    const first = item.firstLsn === 0 ? "" : `, from entry ${item.firstLsn}, durable mark ${item.durableLsn}`;
    printLine(`${item.file}: ${item.state}, ${readableByteSize(item.sizeBytes)}${first}`);
  }

  protected record({ batch, offset, bytes, lastLsn }: LogRecord): void {
    const lsns = batch.firstLsn === lastLsn ? `${lastLsn}` : `${batch.firstLsn}-${lastLsn}`;
    const time = new Date(batch.wallTimeMs).toISOString();
    printLine(
      `  at ${offset}: entries ${lsns}, epoch ${batch.epoch}, ${time}, ${bytes} bytes: ${entriesText(batch)}`,
    );
  }

  protected stop(item: Stop): void {
    printLine(`  at ${item.offset}: no entry ${item.lsn}: ${item.what}`);
  }

  protected summary(item: Summary, notShown: number): void {
    if (notShown > 0) printLine(`  ${notShown} more batches, see --from and --count`);
    printLine();
    printLine(
      pairs([
        ["line", item.line ?? "none"],
        ["epoch", String(item.epoch)],
        ["entries", item.lastLsn === 0 ? "none" : `${item.oldestLsn} to ${item.lastLsn}`],
        ["batches", `${item.records} with ${item.entries} entries, ${readableByteSize(item.recordBytes)}`],
        ["on disk", readableByteSize(item.diskBytes)],
        ["verdict", item.refusal === null ? "Varve opens this log" : `refused: ${item.refusal.message}`],
        ["what to do", item.refusal === null ? null : item.refusal.hint],
      ]),
    );
  }
}

class JsonReport extends Report {
  private readonly segments: Segment[] = [];
  private readonly batches: object[] = [];
  private readonly stops: Stop[] = [];
  private sums: object = {};

  protected segment(item: Segment): void {
    this.segments.push(item);
  }

  protected record({ file, offset, bytes, lastLsn, batch }: LogRecord): void {
    // The payload is the volume's data, and valid only until the next batch is read.
    const { payload, ...header } = batch;
    this.batches.push({ file, offset, bytes, lastLsn, payloadBytes: payload.byteLength, ...header });
  }

  protected stop(item: Stop): void {
    this.stops.push(item);
  }

  protected summary(item: Summary, notShown: number): void {
    this.sums = {
      ...item,
      refusal: item.refusal === null ? null : errorBody(item.refusal),
      batchesNotShown: notShown,
    };
  }

  override end(): void {
    printJson({ summary: this.sums, segments: this.segments, batches: this.batches, stops: this.stops });
  }
}

/** `12 write 48 KiB, 1 trim 1 MiB`, or what a single entry says. */
function entriesText(batch: Batch): string {
  const sums = new Map<string, { count: number; bytes: number }>();
  for (const entry of batch.entries) {
    const sum = sums.get(entry.kind) ?? { count: 0, bytes: 0 };
    sum.count += 1;
    sum.bytes += "length" in entry ? entry.length : 0;
    sums.set(entry.kind, sum);
  }
  const [single] = batch.entries;
  if (batch.entries.length === 1 && single !== undefined) {
    if (single.kind === "epoch") return `epoch, written by ${single.writer}`;
    if (single.kind === "mark") return `mark ${single.name}`;
    if (single.kind === "resize") return `resize to ${single.sizeBytes}`;
    if (single.kind === "rebase") return `rebase to ${single.lsn}`;
    return `${single.kind} at ${single.offset}, ${single.length} bytes`;
  }
  return [...sums]
    .map(([kind, { count, bytes }]) => `${count} ${kind}${bytes > 0 ? ` (${readableByteSize(bytes)})` : ""}`)
    .join(", ");
}
