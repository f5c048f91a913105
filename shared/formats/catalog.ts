/*
 * The catalogue file, DATA/catalog.json (docs/formats/catalog.md): JSON for people and jq, with a checksum line that tells
 * a damaged or hand-edited file from a good one. The file catalogue adapter reads and writes it whole.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  isDurability,
  isReadPolicy,
  isVolumeId,
  type ReadPolicy,
  type VolumeMove,
  type VolumeRecord,
  volumeNameMistake,
  volumeSizeMistake,
  volumeStates,
} from "#shared/domain/volume.ts";
import {
  hasOrders,
  noOrders,
  ordersMistakes,
  type SnapshotSchedule,
  type VolumeOrders,
} from "#shared/domain/volume-orders.ts";
import { checksumOf } from "./checksum.ts";
import { fields, integer, list, nullable, type Shape, text } from "./json-shape.ts";

const formatName = "varve-catalog";
/** Version 2 has `reads`, 3 `orders`, 4 `move`, 5 a volume that is settling; each is written only where a volume needs it, so that older programs read the rest. */
const catalogVersions = [1, 2, 3, 4, 5] as const;
type CatalogVersion = (typeof catalogVersions)[number];
/** 1024 volumes of at most 1020 bytes each and the frame; more is refused unread. */
export const catalogBytesMax = 1024 * 1024;
/** The last lines: the checksum of all bytes before them. */
const closingLines = (sum: string): string => `  "checksum": "xxh64:${sum}"\n}\n`;
const closingPattern = /^ {2}"checksum": "xxh64:([0-9a-f]{16})"\n\}\n$/;
const closingBytes = closingLines("0".repeat(16)).length;
const mistakesShownMax = 20;

/** The file's bytes: records in name order, one per line. They have passed checkVolumes. */
export function encodeCatalog(records: readonly VolumeRecord[]): Buffer {
  const mistakes = checkVolumes(records);
  if (mistakes.length > 0) throw refused("catalogue", "Invalid", mistakes);
  const sorted = [...records].sort((one, other) => (one.name < other.name ? -1 : 1));
  const version = versionOf(records);
  const ordered = sorted.map((record) => inOrder(record, version));
  const lines = ordered.map((record) => `    ${JSON.stringify(record)}`).join(",\n");
  const volumes = lines === "" ? "[]" : `[\n${lines}\n  ]`;
  const covered = `{\n  "format": "${formatName}",\n  "version": ${version},\n  "volumes": ${volumes},\n`;
  return Buffer.from(covered + closingLines(sumOf(Buffer.from(covered))));
}

/**
 * The records of a catalogue file, sorted by name. Throws Corrupt where the bytes are not what was written, Invalid where a
 * newer Varve wrote them, and Corrupt naming every mistake where they are intact but wrong. `place` is the file's path.
 */
export function decodeCatalog(bytes: Buffer, place: string): readonly VolumeRecord[] {
  if (bytes.length > catalogBytesMax) throw damaged(place, `it has ${bytes.length} bytes`);
  const text = bytes.toString("latin1");
  const closingAt = text.length - closingBytes;
  const sum = closingPattern.exec(text.slice(Math.max(0, closingAt)))?.[1];
  if (sum === undefined) throw damaged(place, "it does not end with a checksum line (cut off, or edited)");
  if (sumOf(bytes.subarray(0, closingAt)) !== sum) {
    throw damaged(place, "its checksum does not match its text (damaged, or edited by hand)");
  }
  const document = parse(text, place);
  if (document["format"] !== formatName) throw damaged(place, `its format is not "${formatName}"`);
  if (!(catalogVersions as readonly unknown[]).includes(document["version"])) {
    const found = JSON.stringify(document["version"]);
    throw new VarveError(
      "CatalogVersionError",
      "Invalid",
      `${place}: catalogue version ${found} is not known`,
      {
        hint: "It was written by a newer Varve: use that version. Nothing was changed.",
        fields: { place },
      },
    );
  }
  const mistakes = checkVolumes(document["volumes"]);
  if (mistakes.length > 0) throw refused(place, "Corrupt", mistakes);
  const records = (document["volumes"] as VolumeRecord[]).map((record) => inOrder(record, 1));
  if (!encodeCatalog(records).equals(bytes)) throw damaged(place, "it is not in the form that Varve writes");
  return records;
}

/** Every mistake in what should be a list of volume records, each with its place; [] where there is none. */
export function checkVolumes(volumes: unknown): string[] {
  if (!Array.isArray(volumes)) return ["volumes is not a list"];
  const mistakes: string[] = [];
  if (volumes.length > limits.volumesMax)
    mistakes.push(`${volumes.length} volumes, at most ${limits.volumesMax}`);
  const seen = new Set<unknown>();
  volumes.slice(0, limits.volumesMax).forEach((volume: unknown, index) => {
    const place = `volumes[${index}]`;
    if (typeof volume !== "object" || volume === null || Array.isArray(volume)) {
      mistakes.push(`${place} is not an object`);
      return;
    }
    const record = volume as Record<string, unknown>;
    for (const [field, mistakeOf] of Object.entries(rules)) {
      const mistake = mistakeOf(record[field]);
      if (mistake !== null) mistakes.push(`${place}.${field} ${mistake}`);
    }
    for (const field of Object.keys(record)) {
      if (!Object.hasOwn(rules, field)) mistakes.push(`${place}.${JSON.stringify(field)} is not known`);
    }
    for (const field of ["id", "name"]) {
      const key = `${field}:${String(record[field])}`;
      if (seen.has(key)) mistakes.push(`${place}.${field} ${JSON.stringify(record[field])} is there twice`);
      seen.add(key);
    }
  });
  return mistakes;
}

/** What is wrong with a field's value, or null; also the order of fields in the file. */
const rules: Readonly<Record<keyof VolumeRecord, (value: unknown) => string | null>> = {
  id: (value) => (typeof value === "string" && isVolumeId(value) ? null : "is not 16 lower-case hex digits"),
  name: (value) => (typeof value === "string" ? volumeNameMistake(value) : "is not a text"),
  sizeBytes: (value) => (typeof value === "number" ? volumeSizeMistake(value) : "is not a number"),
  durability: (value) =>
    typeof value === "string" && isDurability(value) ? null : 'is neither "write" nor "flush"',
  createdAtMs: (value) =>
    Number.isSafeInteger(value) && (value as number) >= 0 ? null : "is not a time in ms",
  state: (value) =>
    (volumeStates as readonly unknown[]).includes(value)
      ? null
      : 'is not "creating", "active", "deleting", "arriving", "moved" or "settling"',
  reads: (value) =>
    value === undefined || (typeof value === "string" && isReadPolicy(value))
      ? null
      : 'is neither "available" nor "strict"',
  orders: (value) => {
    if (value === undefined) return null;
    const mistake = ordersShape(value, "");
    if (mistake !== null) return `is wrong: ${mistake.trim()}`;
    const mistakes = ordersMistakes(value as VolumeOrders);
    return mistakes.length === 0 ? null : `are wrong: ${mistakes.join(", ")}`;
  },
  move: (value) => {
    const mistake = value === undefined ? null : moveShape(value, "");
    return mistake === null ? null : `is wrong: ${mistake.trim()}`;
  },
};

/** Printable ASCII that JSON leaves as it is. */
const movePlacePattern = /^[ !#-[\]-~]{1,100}$/;
const moveShape: Shape = nullable(
  fields<VolumeMove>({
    volumeId: text((value) => (isVolumeId(value) ? null : "is not 16 lower-case hex digits")),
    place: text((value) => (movePlacePattern.test(value) ? null : "is not 1 to 100 plain characters")),
  }),
);

const anyText = text(() => null);
const ordersShape: Shape = fields<VolumeOrders>({
  lab: nullable(anyText),
  tags: list(anyText, limits.orderTagsMax),
  logReplicas: nullable(integer()),
  schedules: list(
    fields<SnapshotSchedule>({ name: anyText, everyMs: integer(), keep: integer() }),
    limits.schedulesMax,
  ),
});

function versionOf(records: readonly VolumeRecord[]): CatalogVersion {
  if (records.some(({ state }) => state === "settling")) return 5;
  if (records.some(({ move }) => move !== undefined)) return 4;
  if (records.some(({ orders }) => orders !== undefined && hasOrders(orders))) return 3;
  return records.some(({ reads }) => reads === "strict") ? 2 : 1;
}

/** With what its version says of every volume; of what is usual, nothing else. */
function inOrder(record: VolumeRecord, version: CatalogVersion): VolumeRecord {
  const { id, name, sizeBytes, durability, createdAtMs, state } = record;
  const usualReads: ReadPolicy | undefined = version === 1 ? undefined : "available";
  const reads = record.reads === "strict" ? record.reads : usualReads;
  const orders = record.orders !== undefined && hasOrders(record.orders) ? record.orders : noOrders;
  return {
    id,
    name,
    sizeBytes,
    durability,
    createdAtMs,
    state,
    ...(reads === undefined ? {} : { reads }),
    ...(version >= 3 || orders !== noOrders ? { orders: ordersInOrder(orders) } : {}),
    ...moveInOrder(record.move ?? null, version),
  };
}

function moveInOrder(move: VolumeMove | null, version: CatalogVersion): { readonly move?: VolumeMove } {
  if (move !== null) return { move: { volumeId: move.volumeId, place: move.place } };
  // In the file every volume has the field from version 4 on.
  return version >= 4 ? { move: null as unknown as VolumeMove } : {};
}

function ordersInOrder({ lab, tags, logReplicas, schedules }: VolumeOrders): VolumeOrders {
  const inOrder = schedules.map(({ name, everyMs, keep }) => ({ name, everyMs, keep }));
  return { lab, tags: [...tags], logReplicas, schedules: inOrder };
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
  return new VarveError("CatalogDamagedError", "Corrupt", `${place}: not a usable catalogue: ${what}`, {
    hint: "Nothing was changed. Put back the file from a backup; the volumes' logs and images are untouched.",
    fields: { place },
    cause,
  });
}

function refused(place: string, kind: "Invalid" | "Corrupt", mistakes: readonly string[]): VarveError {
  const shown = mistakes.slice(0, mistakesShownMax).join("; ");
  const rest = mistakes.length > mistakesShownMax ? `; and ${mistakes.length - mistakesShownMax} more` : "";
  return new VarveError("CatalogContentError", kind, `${place}: ${shown}${rest}`, {
    hint: "Nothing was changed.",
    fields: { place, mistakes: mistakes.length },
  });
}
