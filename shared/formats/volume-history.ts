/*
 * A volume's history file, DATA/volumes/NAME/history.json, and its copy (docs/formats/volume-history.md): JSON for people and jq, with
 * the catalogue's checksum line. The volume host reads and writes it whole; rescue makes one from a manifest.
 */
import {
  bucketAwayPolicies,
  type PointPin,
  residencies,
  type SnapshotRecord,
  type VolumeOrigin,
} from "#shared/domain/archive.ts";
import { machineNameMistake } from "#shared/domain/cluster.ts";
import { historyCopyPathOf } from "#shared/domain/data-layout.ts";
import { isVolumeSize } from "#shared/domain/entry.ts";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import {
  byPin,
  bySnapshot,
  type HistoryRecord,
  replicaPinNode,
  spanMsMax,
  type TakenLine,
} from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { isVolumeId, volumeNameMistake } from "#shared/domain/volume.ts";
import { checksumOf } from "./checksum.ts";

const formatName = "varve-volume-history";
/** 2: with a line that was taken. 3: with a pin of a replica. Without both nothing is in it that version 1 has not. */
export const volumeHistoryVersion = 3;
/** Whatever is in it, filled up with spaces so that its length stays and it can be overwritten in place. */
export const volumeHistoryFileVersion = 4;
const versionOf = ({ line, pins }: Pick<HistoryRecord, "line" | "pins">): number => {
  if (pins.some(({ holder }) => replicaPinNode(holder) !== null)) return volumeHistoryVersion;
  return line === undefined ? 1 : 2;
};
/** The least length of a file that is overwritten: some 140 snapshots. The others are twice the one before. */
const fileBytesMin = 16 * 1024;
/** 4096 snapshots and as many pins of at most 110 bytes each; more is refused unread. */
export const volumeHistoryBytesMax = 1024 * 1024;
const closingLines = (sum: string): string => `  "checksum": "xxh64:${sum}"\n}\n`;
const closingPattern = /^ {2}"checksum": "xxh64:([0-9a-f]{16})"\n\}\n$/;
const closingBytes = closingLines("0".repeat(16)).length;
const mistakesShownMax = 20;

type Fields = Readonly<Record<string, unknown>>;
type Rule = (value: unknown) => string | null;

/** The bytes of a new volume's file, or of a key of the shared table. Throws Invalid for content that no volume may have. */
export function encodeVolumeHistory(record: HistoryRecord): Buffer {
  return closed(coveredText(record, versionOf(record)));
}

/** The bytes of a file that is overwritten in place: 16 KiB or a power of two above, a quarter of the text's length and more to spare. */
export function encodeVolumeHistoryFile(record: HistoryRecord): Buffer {
  const covered = coveredText(record, volumeHistoryFileVersion);
  let bytes = fileBytesMin;
  while (bytes < volumeHistoryBytesMax && bytes < (covered.length + closingBytes) * 1.25) bytes *= 2;
  return closed(filledUp(covered, bytes));
}

function coveredText(record: HistoryRecord, version: number): string {
  const mistakes = checkHistory(record as unknown as Fields);
  if (mistakes.length > 0) throw refused("volume history", "Invalid", mistakes);
  const ordered = inOrder(record);
  const lines = Object.entries(ordered).map(
    ([name, value]) => `  "${name}": ${Array.isArray(value) ? listText(value) : JSON.stringify(value)},\n`,
  );
  return `{\n  "format": "${formatName}",\n  "version": ${version},\n${lines.join("")}`;
}

/** With a line of spaces that makes the file `bytes` long. */
function filledUp(covered: string, bytes: number): string {
  return `${covered}${" ".repeat(Math.max(0, bytes - closingBytes - covered.length - 1))}\n`;
}

function closed(covered: string): Buffer {
  return Buffer.from(covered + closingLines(sumOf(Buffer.from(covered))));
}

/** What was found, and why it was not `place` that said it. */
export interface FoundHistory {
  readonly record: HistoryRecord;
  readonly copyUsed: string | null;
}

/**
 * What a volume's file at `place` says, or its copy where the file is not there, torn, or on a block that can't be read: the copy has all that
 * was ever answered then. Null where neither is there. `read` gives a file's bytes, null where there is none. Rejects as decodeVolumeHistory()
 * throws, and with what `read` rejects with; the file's own trouble where the copy is of no use either.
 */
export async function readVolumeHistory(
  read: (path: string) => Promise<Buffer | null>,
  place: string,
  volumeId: string,
): Promise<FoundHistory | null> {
  const readOne = async (path: string): Promise<HistoryRecord | null> => {
    const bytes = await read(path);
    return bytes === null ? null : decodeVolumeHistory(bytes, path, volumeId);
  };
  const found = await readOne(place).catch((cause: unknown) => {
    if (isLost(cause)) return cause;
    throw cause;
  });
  if (found !== null && !(found instanceof VarveError)) return { record: found, copyUsed: null };
  const copy = await readOne(historyCopyPathOf(place)).catch((cause: unknown) => {
    throw found ?? cause;
  });
  if (copy !== null)
    return { record: copy, copyUsed: found === null ? `${place} is missing` : found.message };
  if (found !== null) throw found;
  return null;
}

const isLost = (cause: unknown): cause is VarveError =>
  cause instanceof VarveError &&
  (cause._tag === "VolumeHistoryDamagedError" || (cause instanceof FileStoreError && cause.code === "EIO"));

/**
 * Reads a history file of the volume with this id. Throws Corrupt where the bytes are not what was written or are another
 * volume's, Invalid where a newer Varve wrote them. `place` is the file's path.
 */
export function decodeVolumeHistory(bytes: Buffer, place: string, volumeId: string): HistoryRecord {
  if (bytes.length > volumeHistoryBytesMax) throw damaged(place, `it has ${bytes.length} bytes`);
  const text = bytes.toString("latin1");
  const closingAt = text.length - closingBytes;
  const sum = closingPattern.exec(text.slice(Math.max(0, closingAt)))?.[1];
  if (sum === undefined) throw damaged(place, "it does not end with a checksum line (cut off, or edited)");
  if (sumOf(bytes.subarray(0, closingAt)) !== sum) {
    throw damaged(place, "its checksum does not match its text (damaged, or edited by hand)");
  }
  const document = parse(text, place);
  if (document["format"] !== formatName) throw damaged(place, `its format is not "${formatName}"`);
  const found = document["version"] as number;
  if (![1, 2, volumeHistoryVersion, volumeHistoryFileVersion].includes(found)) {
    throw new VarveError(
      "VolumeHistoryVersionError",
      "Invalid",
      `${place}: version ${JSON.stringify(found)} is not known`,
      {
        hint: "It was written by a newer Varve: use that version. Nothing was changed.",
        fields: { place },
      },
    );
  }
  const { format: _format, version: _version, checksum: _checksum, ...fields } = document;
  const mistakes = checkHistory(fields);
  if (mistakes.length > 0) throw refused(place, "Corrupt", mistakes);
  const record = inOrder(fields as unknown as HistoryRecord);
  const again =
    found === volumeHistoryFileVersion
      ? closed(filledUp(coveredText(record, found), bytes.length))
      : encodeVolumeHistory(record);
  if (!again.equals(bytes)) throw damaged(place, "it is not in the form that Varve writes");
  if (record.volumeId !== volumeId) {
    throw new VarveError(
      "VolumeHistoryForeignError",
      "Corrupt",
      `${place} belongs to volume ${record.volumeId}`,
      {
        hint: `The volume here is ${volumeId}. Put its own history.json back. Nothing was changed.`,
        fields: { place, volumeId, found: record.volumeId },
      },
    );
  }
  return record;
}

/** Every mistake in what should be a history record, each with its place; [] where there is none. */
function checkHistory(fields: Fields): string[] {
  const mistakes: string[] = [];
  checkFields("", fields, rules, mistakes);
  checkList("pins", fields["pins"], limits.pinsMax, pinRules, mistakes);
  checkList("snapshots", fields["snapshots"], limits.snapshotsMax, snapshotRules, mistakes);
  if (typeof fields["origin"] === "object" && fields["origin"] !== null) {
    checkFields("origin.", fields["origin"] as Fields, originRules, mistakes);
  }
  if (typeof fields["line"] === "object" && fields["line"] !== null) {
    checkFields("line.", fields["line"] as Fields, lineRules, mistakes);
  }
  if (mistakes.length > 0) return mistakes;
  const { pins, snapshots } = fields as unknown as HistoryRecord;
  twice(
    "pins",
    pins.map((pin) => `${pin.lsn} of ${pin.holder}`),
    mistakes,
  );
  twice(
    "snapshots",
    snapshots.map((snapshot) => snapshot.name),
    mistakes,
  );
  return mistakes;
}

const time = (value: unknown): string | null =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? null : "is not a time in ms";
const id: Rule = (value) =>
  typeof value === "string" && isVolumeId(value) ? null : "is not 16 lower-case hex digits";
const lsn: Rule = (value) => (Number.isSafeInteger(value) && (value as number) >= 1 ? null : "is not an LSN");
const name: Rule = (value) => (typeof value === "string" ? volumeNameMistake(value) : "is not a text");
const list: Rule = (value) => (Array.isArray(value) ? null : "is not a list");
const oneOf =
  (words: readonly string[]): Rule =>
  (value) =>
    (words as readonly unknown[]).includes(value)
      ? null
      : `is not ${words.map((word) => `"${word}"`).join(" or ")}`;
const span =
  (least: number): Rule =>
  (value) =>
    Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= spanMsMax
      ? null
      : `is not a time span of ${least} ms to 100 years`;

/** What is wrong with a field's value, or null; also the order of fields in the file. */
const rules: Readonly<Record<keyof HistoryRecord, Rule>> = {
  volumeId: id,
  beginBytes: (value) => (typeof value === "number" && isVolumeSize(value) ? null : "is not a volume's size"),
  archiverEpoch: (value) =>
    Number.isSafeInteger(value) && (value as number) >= 0 ? null : "is not an epoch",
  line: (value) =>
    value === undefined || (typeof value === "object" && value !== null && !Array.isArray(value))
      ? null
      : "is not an object",
  historyMs: span(0),
  residency: oneOf(residencies),
  coldAfterMs: span(1),
  bucketAway: oneOf(bucketAwayPolicies),
  origin: (value) =>
    typeof value === "object" && !Array.isArray(value) ? null : "is neither null nor an object",
  pins: list,
  snapshots: list,
};
const lineRules: Readonly<Record<keyof TakenLine, Rule>> = {
  number: (value) =>
    Number.isSafeInteger(value) && (value as number) >= 2 ? null : "is not a line's number",
  id,
};
const originRules: Readonly<Record<keyof VolumeOrigin, Rule>> = { volumeId: id, name, lsn };
const pinRules: Readonly<Record<keyof PointPin, Rule>> = {
  lsn,
  holder: (value) => {
    const node = typeof value === "string" ? replicaPinNode(value) : null;
    if (node !== null) return machineNameMistake(node);
    return value === "rebase" || id(value) === null ? null : 'is neither a volume id nor "rebase"';
  },
};
const snapshotRules: Readonly<Record<keyof SnapshotRecord, Rule>> = { name, lsn, wallTimeMs: time };

function checkFields(
  place: string,
  fields: Fields,
  wanted: Readonly<Record<string, Rule>>,
  mistakes: string[],
): void {
  for (const [field, mistakeOf] of Object.entries(wanted)) {
    const mistake = mistakeOf(fields[field]);
    if (mistake !== null) mistakes.push(`${place}${field} ${mistake}`);
  }
  for (const field of Object.keys(fields)) {
    if (!Object.hasOwn(wanted, field)) mistakes.push(`${place}${JSON.stringify(field)} is not known`);
  }
}

function checkList(
  place: string,
  items: unknown,
  most: number,
  wanted: Readonly<Record<string, Rule>>,
  mistakes: string[],
): void {
  if (!Array.isArray(items)) return;
  if (items.length > most) mistakes.push(`${items.length} ${place}, at most ${most}`);
  items.slice(0, most).forEach((item: unknown, index) => {
    if (typeof item === "object" && item !== null && !Array.isArray(item))
      checkFields(`${place}[${index}].`, item as Fields, wanted, mistakes);
    else mistakes.push(`${place}[${index}] is not an object`);
  });
}

function twice(place: string, keys: readonly string[], mistakes: string[]): void {
  const seen = new Set<string>();
  keys.forEach((key, index) => {
    if (seen.has(key)) mistakes.push(`${place}[${index}] is there twice: ${key}`);
    seen.add(key);
  });
}

function inOrder(record: HistoryRecord): HistoryRecord {
  const { origin, line } = record;
  return {
    volumeId: record.volumeId,
    beginBytes: record.beginBytes,
    archiverEpoch: record.archiverEpoch,
    ...(line === undefined ? {} : { line: { number: line.number, id: line.id } }),
    historyMs: record.historyMs,
    residency: record.residency,
    coldAfterMs: record.coldAfterMs,
    bucketAway: record.bucketAway,
    origin: origin === null ? null : { volumeId: origin.volumeId, name: origin.name, lsn: origin.lsn },
    pins: record.pins.map(({ lsn, holder }) => ({ lsn, holder })).sort(byPin),
    snapshots: record.snapshots
      .map(({ name, lsn, wallTimeMs }) => ({ name, lsn, wallTimeMs }))
      .sort(bySnapshot),
  };
}

function listText(items: readonly unknown[]): string {
  if (items.length === 0) return "[]";
  return `[\n${items.map((item) => `    ${JSON.stringify(item)}`).join(",\n")}\n  ]`;
}

function sumOf(bytes: Uint8Array): string {
  return checksumOf(bytes).toString(16).padStart(16, "0");
}

function parse(text: string, place: string): Record<string, unknown> {
  try {
    const document: unknown = JSON.parse(text);
    if (typeof document === "object" && document !== null) return document as Record<string, unknown>;
  } catch (cause) {
    throw damaged(place, "it is not JSON", cause);
  }
  throw damaged(place, "it is not a JSON object");
}

function damaged(place: string, what: string, cause?: unknown): VarveError {
  return new VarveError(
    "VolumeHistoryDamagedError",
    "Corrupt",
    `${place}: not a usable volume history: ${what}`,
    {
      hint: "Nothing was changed. Put back the file from a backup, or bring the volume back from its bucket: varve rescue.",
      fields: { place },
      cause,
    },
  );
}

function refused(place: string, kind: "Invalid" | "Corrupt", mistakes: readonly string[]): VarveError {
  const shown = mistakes.slice(0, mistakesShownMax).join("; ");
  const rest = mistakes.length > mistakesShownMax ? `; and ${mistakes.length - mistakesShownMax} more` : "";
  return new VarveError("VolumeHistoryContentError", kind, `${place}: ${shown}${rest}`, {
    hint: "Nothing was changed.",
    fields: { place, mistakes: mistakes.length },
  });
}
