/*
 * What is attached on this machine, as files in /run/varve-attach: nbdN.json (state, for people and commands) and nbdN.env (the
 * name, for udev). Written by the supervising process (attachment.ts), read by `varve detach` and `varve attachments --local`.
 * Also makes /dev/varve/NAME itself where no udev runs. Not under /run/varve: systemd removes that with varve.service.
 */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { devicePath, isConnected } from "./kernel-nbd.ts";

export const recordFolder = "/run/varve-attach";
const linkFolder = "/dev/varve";

export type AttachmentState = "attached" | "waiting" | "detaching";

export interface AttachmentRecord {
  /** VOLUME or VOLUME@POINT. */
  readonly name: string;
  readonly index: number;
  readonly device: string;
  readonly link: string;
  readonly state: AttachmentState;
  /** The gateway that the links lead to. */
  readonly server: string;
  readonly servers: readonly string[];
  readonly connections: number;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** The supervising process. */
  readonly pid: number;
  readonly failovers: number;
}

const pathOf = (index: number, kind: "json" | "env"): string => join(recordFolder, `nbd${index}.${kind}`);

export const linkOf = (name: string): string => join(linkFolder, name);

export function writeRecord(record: AttachmentRecord): void {
  mkdirSync(recordFolder, { recursive: true, mode: 0o755 });
  replace(pathOf(record.index, "env"), `VARVE_NAME=${record.name}\n`);
  replace(pathOf(record.index, "json"), `${JSON.stringify(record, null, 2)}\n`);
}

export function removeRecord(record: AttachmentRecord): void {
  rmSync(pathOf(record.index, "env"), { force: true });
  if (!udevRuns()) rmSync(record.link, { force: true });
  rmSync(pathOf(record.index, "json"), { force: true });
}

/** udev makes the link by infra/udev/60-varve.rules; without udev it is made here. */
export function makeLink(record: AttachmentRecord): void {
  if (udevRuns()) return;
  mkdirSync(dirname(record.link), { recursive: true });
  rmSync(record.link, { force: true });
  symlinkSync(devicePath(record.index), record.link);
}

/** Records by device, without those whose device is no longer connected and whose supervisor is gone. */
export function readRecords(): AttachmentRecord[] {
  if (!existsSync(recordFolder)) return [];
  const records: AttachmentRecord[] = [];
  for (const file of readdirSync(recordFolder)) {
    if (!/^nbd\d+\.json$/.test(file)) continue;
    try {
      const record = JSON.parse(readFileSync(join(recordFolder, file), "utf8")) as AttachmentRecord;
      if (isConnected(record.index) || isAlive(record.pid)) records.push(record);
    } catch {
      // Removed between the listing and the reading.
    }
  }
  return records.sort((a, b) => a.index - b.index);
}

/** By VOLUME, VOLUME@POINT, /dev/nbdN or /dev/varve/NAME. */
export function findRecord(text: string): AttachmentRecord | undefined {
  return readRecords().find((one) => one.name === text || one.device === text || one.link === text);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM";
  }
}

function udevRuns(): boolean {
  try {
    return lstatSync("/run/udev/control").isSocket();
  } catch {
    return false;
  }
}

function replace(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o644 });
  renameSync(`${path}.new`, path);
}
