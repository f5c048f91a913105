/*
 * `varve attach`, `varve detach`, `varve attachments --local`: reads flags, looks at the export before anything is changed, starts the
 * supervising process (this same command with --foreground) and waits until it says that the disk is there. The work is done by
 * attach/attachment.ts. Spec: docs/specs/attach.md.
 */
import { spawn } from "node:child_process";
import { mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { type ErrorBody, errorBody, errorFromBody } from "#shared/api/error-body.ts";
import { exactByteSize } from "#shared/domain/byte-size.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { type ListenAddress, parseListenAddress } from "#shared/shell/listen-address.ts";
import { Attachment, type AttachWish, requireDurableWrites } from "../attach/attachment.ts";
import {
  type AttachmentRecord,
  findRecord,
  isAlive,
  readRecords,
  recordFolder,
  removeRecord,
} from "../attach/attachment-record.ts";
import { lookAtExport } from "../attach/export-link.ts";
import { announceDevice, flushDevice, isConnected, isInUse, KernelNbd } from "../attach/kernel-nbd.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { printJson, printLine, printNote, table } from "../output.ts";

const connectionsMax = 16;
const secondsMax = 24 * 3600;
const detachMs = 30_000;

type Told = { readonly record: AttachmentRecord } | { readonly error: ErrorBody };

export async function attach(line: CommandLine): Promise<number> {
  const wish = wishOf(line);
  await lookFirst(wish, wish.waitSeconds);
  const kernel = KernelNbd.open();
  const known = readRecords().find((one) => one.name === wish.name && isConnected(one.index));
  if (known !== undefined && isAlive(known.pid)) {
    throw new VarveError("AlreadyAttachedError", "Invalid", `${wish.name} is attached as ${known.device}`, {
      hint: `It is ${known.link}; varve detach ${wish.name} takes it away.`,
      fields: { name: wish.name, device: known.device },
    });
  }
  if (line.values.has("foreground")) return await superviseHere(line, kernel, wish, known);
  kernel.close();
  const record = await superviseInBackground();
  if (line.values.has("json")) printJson(record);
  else printLine(attachedText(record));
  return 0;
}

export async function detach(line: CommandLine): Promise<number> {
  const name = line.args[0] ?? "";
  const record = findRecord(name);
  if (record === undefined) {
    const names = readRecords().map((one) => one.name);
    throw new VarveError("NotAttachedError", "Invalid", `nothing is attached here as ${name}`, {
      hint: names.length === 0 ? "Nothing is attached on this machine." : `Attached: ${names.join(", ")}.`,
      fields: { name },
    });
  }
  const kernel = KernelNbd.open();
  if (isConnected(record.index)) {
    if (!line.values.has("force") && isInUse(record.index)) {
      throw new VarveError("DeviceInUseError", "Retry", `${record.device} (${record.name}) is in use`, {
        hint: `Unmount it first: findmnt ${record.device}. --force takes it away all the same; its users get I/O errors.`,
        fields: { name: record.name, device: record.device },
      });
    }
    // With --force and the gateway away there is nobody to write to: the flush would wait for it.
    if (!record.readOnly && record.state === "attached") flushDevice(record.index);
    kernel.disconnect(record.index);
  }
  const untilMs = performance.now() + detachMs;
  while (isAlive(record.pid) && findRecord(record.name) !== undefined && performance.now() < untilMs) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  removeRecord(record);
  announceDevice(record.index);
  if (line.values.has("json")) printJson({ detached: record.name, device: record.device });
  else printLine(`detached ${record.name} (${record.device})`);
  return 0;
}

export function listLocal(line: CommandLine): number {
  const found = readRecords();
  if (line.values.has("json")) printJson(found);
  else if (found.length === 0) printLine("nothing is attached on this machine");
  else {
    printLine(
      table<AttachmentRecord>(
        [
          { title: "NAME", cell: (one) => one.name },
          { title: "DEVICE", cell: (one) => one.device },
          { title: "SIZE", right: true, cell: (one) => exactByteSize(one.sizeBytes) },
          { title: "MODE", cell: (one) => (one.readOnly ? "read-only" : "writable") },
          { title: "STATE", cell: (one) => (isAlive(one.pid) ? one.state : "unattended") },
          { title: "GATEWAY", cell: (one) => one.server },
          { title: "FAIL-OVERS", right: true, cell: (one) => String(one.failovers) },
        ],
        found,
      ),
    );
  }
  return 0;
}

async function superviseHere(
  line: CommandLine,
  kernel: KernelNbd,
  wish: AttachWish,
  known: AttachmentRecord | undefined,
): Promise<number> {
  const attachment = new Attachment(kernel, wish, printNote);
  const stop = (): void => {
    if (line.values.has("leave")) attachment.askLeave();
    else attachment.askDetach();
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", () => {}); // A closed terminal takes no disk away.
  try {
    const record = known === undefined ? await attachment.attach() : await attachment.resume(known);
    if (process.send === undefined) printLine(attachedText(record));
    else tell({ record });
    await attachment.supervise();
    return 0;
  } catch (cause) {
    if (process.send === undefined) throw cause;
    const error = toVarveError(cause, "varve attach");
    printNote(error.message);
    tell({ error: errorBody(error) });
    return 1;
  } finally {
    attachment.close();
    kernel.close();
  }
}

function tell(what: Told): void {
  if (process.connected) process.send?.(what, () => process.disconnect());
}

/** The same command line with --foreground, in a session of its own. */
async function superviseInBackground(): Promise<AttachmentRecord> {
  mkdirSync(recordFolder, { recursive: true, mode: 0o755 });
  // systemd's journal takes what the process says; without systemd it goes to a file.
  const journal = process.env["INVOCATION_ID"] !== undefined;
  const output = journal ? ("inherit" as const) : openSync(join(recordFolder, "attach.log"), "a", 0o600);
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1), "--foreground"], {
    detached: true,
    stdio: ["ignore", output, output, "ipc"],
  });
  const told = await new Promise<Told>((resolve, reject) => {
    child.once("message", (message) => resolve(message as Told));
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`the supervising process ended with ${code}`)));
  });
  child.unref();
  if ("error" in told) throw errorFromBody(told.error);
  return told.record;
}

/** Errors of words, names and addresses are told before anything is asked of the kernel. */
async function lookFirst(wish: AttachWish, waitSeconds: number): Promise<void> {
  const untilMs = performance.now() + waitSeconds * 1000;
  for (;;) {
    let failure: unknown;
    for (const server of wish.servers) {
      try {
        requireDurableWrites(wish.name, await lookAtExport(server, wish.name));
        return;
      } catch (cause) {
        if (!(cause instanceof VarveError) || cause.kind !== "Retry") throw cause;
        failure ??= cause;
      }
    }
    if (performance.now() >= untilMs) throw failure;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function wishOf(line: CommandLine): AttachWish & { readonly waitSeconds: number } {
  const mistakes: string[] = [];
  const servers: ListenAddress[] = [];
  for (const text of line.values.get("server") ?? ["127.0.0.1:10809"]) {
    const server = parseListenAddress(text);
    if (typeof server === "string") mistakes.push(`--server: "${text}" ${server}`);
    else servers.push(server);
  }
  const device = line.values.get("device")?.[0];
  const match = device === undefined ? null : /^\/dev\/nbd(\d{1,4})$/.exec(device);
  if (device !== undefined && match === null) mistakes.push(`--device: "${device}" is not /dev/nbdN`);
  const number = (flag: string, least: number, most: number, usual: number): number => {
    const text = line.values.get(flag)?.[0];
    if (text === undefined) return usual;
    const value = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most))
      mistakes.push(`--${flag}: "${text}" is not a number from ${least} to ${most}`);
    return value;
  };
  const wish = {
    name: line.args[0] ?? "",
    servers,
    index: match === null ? null : Number(match[1]),
    connections: number("connections", 1, connectionsMax, 1),
    timeoutSeconds: number("timeout", 1, secondsMax, 4),
    deadSeconds: number("dead", 1, secondsMax, 120),
    waitSeconds: number("wait", 0, secondsMax, 0),
  };
  if (/[/\s]/.test(wish.name)) mistakes.push(`"${wish.name}" is not VOLUME or VOLUME@POINT`);
  if (mistakes.length > 0) throw new UsageError(mistakes, "Nothing was attached. See: varve help attach.");
  return wish;
}

function attachedText(record: AttachmentRecord): string {
  const mode = record.readOnly ? ", read-only" : "";
  return `attached ${record.name} as ${record.device}, ${exactByteSize(record.sizeBytes)}${mode}, from ${record.server}: ${record.link}`;
}
