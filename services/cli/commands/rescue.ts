/*
 * `varve rescue`: a data directory out of a bucket alone. Lists the volumes, takes each one's next line, makes its files
 * (single-machine.ts), prints what it reached; `varve up` serves them then. `rescue.json` tells a stopped rescue from a data
 * directory in use. See docs/specs/retention.md, "Rescue".
 */
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { errorBody } from "#shared/api/error-body.ts";
import { dataLayout } from "#shared/domain/data-layout.ts";
import { FileStoreError, toVarveError, VarveError } from "#shared/domain/errors.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type { RescuedVolume } from "#shared/ports/bucket-administration.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { type FoundVolumes, openRescuer } from "../../archiver/keeper-layer.ts";
import { withStore } from "../bucket-store.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { printJson, printLine, printNote } from "../output.ts";
import { type OpenVolumes, openVolumes } from "../single-machine.ts";
import { rescuedText } from "./bucket.ts";

interface Outcome {
  readonly rescued: RescuedVolume[];
  readonly kept: string[];
  readonly failed: { readonly name: string; readonly error: VarveError }[];
}

/** A volume could not be brought back; the others were. */
const failedExitCode = 1;

export async function rescue(line: CommandLine): Promise<number> {
  const url = required(line, "bucket", "file:///mnt/backup/varve");
  const data = required(line, "data", "/var/lib/varve");
  return await withStore(url, async (store) => {
    const rescuer = openRescuer(store, new SystemClock(), new SystemRandom());
    const found = await rescuer.find();
    if (line.values.has("dry-run")) {
      const reached = found.live.map(({ manifest }) => rescuer.preview(manifest));
      return printDryRun(line, reached, found);
    }
    if (found.live.length === 0) throw nothingThere(store);
    const opened = await openVolumes({ dataDirectory: data, create: true });
    try {
      await begin(opened, store);
      const outcome: Outcome = { rescued: [], kept: [], failed: [] };
      for (const { manifest } of found.live) {
        if (opened.host.list().some((view) => view.id === manifest.volumeId)) {
          outcome.kept.push(manifest.name);
          continue;
        }
        const take = async () => rescuer.takeLine(manifest.volumeId);
        try {
          outcome.rescued.push(await opened.bringBack(rescuer.recordOf(manifest), take));
        } catch (cause) {
          outcome.failed.push({ name: manifest.name, error: toVarveError(cause, "rescue") });
        }
      }
      if (outcome.failed.length === 0) await opened.store.remove(markPath(opened));
      return print(line, outcome, found, `varve up --data ${data} --bucket '${url}'`);
    } finally {
      await opened.close();
    }
  });
}

const markPath = (opened: OpenVolumes): string => `${opened.dataDirectory}/${dataLayout.rescue}`;

/** Refuses a directory that has volumes, unless a rescue from this bucket put them there. */
async function begin(opened: OpenVolumes, store: ObjectStore): Promise<void> {
  const { dataDirectory } = opened;
  const mark = Buffer.from(`${JSON.stringify({ bucket: store.place })}\n`);
  const before = await opened.store.readWhole(markPath(opened)).catch((cause: unknown) => {
    if (cause instanceof FileStoreError && cause.code === "ENOENT") return null;
    throw cause;
  });
  if (before === null ? opened.host.list().length === 0 : Buffer.from(before).equals(mark)) {
    await opened.store.replaceWhole(markPath(opened), mark);
    return;
  }
  const what = before === null ? "has volumes" : "holds a rescue from another bucket that was stopped";
  throw new VarveError("RescueDirectoryError", "Invalid", `data directory ${dataDirectory} ${what}`, {
    hint: "Give --data a new or empty directory. Nothing was changed, here or in the bucket.",
    fields: { path: dataDirectory },
  });
}

function print(line: CommandLine, outcome: Outcome, found: FoundVolumes, next: string): number {
  const { rescued, kept, failed } = outcome;
  if (line.values.has("json")) {
    printJson({
      rescued,
      kept,
      failed: failed.map(({ name, error }) => ({ name, error: errorBody(error) })),
    });
  } else {
    for (const volume of rescued) printLine(rescuedText(volume));
    for (const name of kept) printLine(`${name}: brought back before, left as it is`);
    for (const { name, error } of failed) {
      printNote(`varve: ${name}: ${error.message}`);
      if (error.hint !== "") printNote(`hint: ${error.hint}`);
    }
    printDeleted(found);
    printLine(`serve ${rescued.length + kept.length === 1 ? "it" : "them"}: ${next}`);
  }
  return failed.length === 0 ? 0 : failedExitCode;
}

function printDryRun(line: CommandLine, reached: readonly RescuedVolume[], found: FoundVolumes): number {
  if (line.values.has("json")) {
    printJson({ volumes: reached, deleted: found.deleted.map(({ manifest }) => manifest.name) });
    return 0;
  }
  if (reached.length === 0) printLine("the bucket has no volumes");
  for (const volume of reached) printLine(rescuedText(volume));
  printDeleted(found);
  return 0;
}

function printDeleted(found: FoundVolumes): void {
  for (const { manifest } of found.deleted) {
    printLine(
      `${manifest.name}: deleted ${timeText(manifest.deletedAtMs ?? 0)}, not brought back; see varve volume undelete`,
    );
  }
}

function nothingThere(store: ObjectStore): VarveError {
  return new VarveError("NothingToRescueError", "Invalid", `${store.place} has no volumes`, {
    hint: "Check the URL, with its prefix. varve rescue --dry-run changes nothing.",
    fields: { bucket: store.place },
  });
}

function required(line: CommandLine, flag: string, example: string): string {
  const value = line.values.get(flag)?.[0];
  if (value !== undefined) return value;
  throw new UsageError(
    [`--${flag} is missing: varve rescue --${flag} ${example}`],
    "See: varve help rescue.",
  );
}
