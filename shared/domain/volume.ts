/*
 * A volume as the catalogue knows it, and the rules for its name and size. Pure: the catalogue codec
 * (shared/formats/catalog.ts), the volume host, the CLI and the API all check against these functions, so that a name or
 * a size that one of them takes is taken by all.
 */
import { VarveError } from "./errors.ts";
import { limits } from "./limits.ts";
import type { VolumeOrders } from "./volume-orders.ts";

/** `write`: a reply means durable. `flush`: FLUSH and FUA mean durable (design, promise 2). */
export const durabilities = ["write", "flush"] as const;
export type VolumeDurability = (typeof durabilities)[number];

/**
 * creating: files may be missing or half made, nobody was told that the volume exists; a start removes it.
 * active: exists. settling: deleted, but its files stay until the bucket holds all of it (docs/specs/volume-host.md, "Deleting").
 * deleting: the user was promised that it goes; a start removes what is left. arriving: a cluster's, being filled
 * from a data directory, served to who fills it only. moved: a data directory's, served by a cluster now and never again from here.
 */
export const volumeStates = ["creating", "active", "deleting", "arriving", "moved", "settling"] as const;
export type VolumeState = (typeof volumeStates)[number];

/**
 * What a gateway of a cluster answers while it can't prove that it still holds the volume's lease: `available`: the last state
 * that it acknowledged; `strict`: nothing, the read waits, then gets EIO (docs/specs/cluster.md#reads-and-the-lease).
 */
export const readPolicies = ["available", "strict"] as const;
export type ReadPolicy = (typeof readPolicies)[number];

/** The other end of a move (docs/specs/move-into-cluster.md). */
export interface VolumeMove {
  /** The volume's id there. */
  readonly volumeId: string;
  /** For people: the cluster's api, or host and data directory. */
  readonly place: string;
}

export interface VolumeRecord {
  /** 16 lower-case hex digits, never reused. */
  readonly id: string;
  /** Unique among the volumes of a catalogue; also the NBD export name and the name of the volume's directory. */
  readonly name: string;
  /** Bytes. The log's resize entries are the truth; this is the size at the last clean change. */
  readonly sizeBytes: number;
  readonly durability: VolumeDurability;
  /** Wall clock, milliseconds since 1970. */
  readonly createdAtMs: number;
  readonly state: VolumeState;
  /** Not there: available. One machine's reads are always strict, whatever stands here. */
  readonly reads?: ReadPolicy;
  /** Not there: none (volume-orders.ts). */
  readonly orders?: VolumeOrders;
  /** Of a volume that is moved or arriving. */
  readonly move?: VolumeMove;
}

const namePattern = /^[a-z0-9][a-z0-9._-]*$/;
const idPattern = /^[0-9a-f]{16}$/;

/** What is wrong with a volume name, or null. A sentence without a full stop, to stand behind the name. */
export function volumeNameMistake(name: string): string | null {
  if (name === "") return "is empty";
  if (name.length > limits.nameLengthMax) return `is longer than ${limits.nameLengthMax} characters`;
  if (!namePattern.test(name)) {
    return "must be made of a-z, 0-9, '.', '_' and '-', and start with a letter or digit (lower case)";
  }
  return null;
}

/** What is wrong with a volume size in bytes, or null. */
export function volumeSizeMistake(sizeBytes: number): string | null {
  if (!Number.isSafeInteger(sizeBytes)) return "is not a whole number of bytes";
  if (sizeBytes < limits.volumeBytesMin) return `is below the least size, ${limits.volumeBytesMin} bytes`;
  if (sizeBytes > limits.volumeBytesMax) return "is above the greatest size, 1 PiB";
  if (sizeBytes % limits.volumeBytesMin !== 0) {
    return `is not a multiple of ${limits.volumeBytesMin} bytes`;
  }
  return null;
}

export function isVolumeId(text: string): boolean {
  return idPattern.test(text);
}

export function isDurability(text: string): text is VolumeDurability {
  return (durabilities as readonly string[]).includes(text);
}

export function isReadPolicy(text: string): text is ReadPolicy {
  return (readPolicies as readonly string[]).includes(text);
}

/** The rules above as an error, for whoever takes a name and a size from outside. */
export function checkVolumeName(name: string): void {
  const mistake = volumeNameMistake(name);
  if (mistake === null) return;
  throw new VarveError("VolumeNameError", "Invalid", `volume name ${JSON.stringify(name)} ${mistake}`, {
    hint: "For example: disk0, vm-web.root, backup_2026.",
    fields: { name },
  });
}

export function checkVolumeSize(sizeBytes: number): void {
  const mistake = volumeSizeMistake(sizeBytes);
  if (mistake === null) return;
  throw new VarveError("VolumeSizeError", "Invalid", `volume size ${sizeBytes} ${mistake}`, {
    hint: "Sizes are binary: 512M, 10G, 2T; 10G is 10 GiB.",
    fields: { sizeBytes },
  });
}

export function shrinkNotAllowed(name: string, before: number, after: number): VarveError {
  return new VarveError(
    "ShrinkNotAllowedError",
    "Invalid",
    `volume ${name} has ${before} bytes; ${after} bytes would cut off its end`,
    {
      hint: "Shrink the file system first, then say so with --shrink: what lies behind the new end is lost.",
      fields: { name, sizeBytes: before, wantedBytes: after },
    },
  );
}
