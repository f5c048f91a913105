/*
 * A smaller size for a cluster's volume: what lies behind the new end is lost, so nobody is attached, and the entry is appended here, under
 * the volume's lease and an epoch of its own. Called by cluster-volumes.ts; replicas apply it as they do any entry. Steps, and what a crash
 * behind each leaves: docs/specs/cluster.md#a-new-size.
 *
 *   gateway gives it up ─► lease ─► epoch ─► resize entry ─► size in the catalogue
 */
import { entryKind } from "#shared/domain/entry.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { VolumeWriting, type VolumeWritingParts } from "./volume-writing.ts";

export interface ClusterShrinkOptions extends VolumeWritingParts {
  readonly catalog: Pick<VolumeCatalog, "fetch" | "change">;
}

const purpose = { holder: "resize", refused: "shrunk", isForced: false } as const;

export class ClusterShrink {
  readonly #options: ClusterShrinkOptions;
  readonly #writing: VolumeWriting;

  constructor(options: ClusterShrinkOptions) {
    this.#options = options;
    this.#writing = new VolumeWriting(options);
  }

  /** Told again it changes nothing more. */
  async shrink(record: VolumeRecord, sizeBytes: number): Promise<void> {
    const { name } = record;
    await this.#writing.append(record, purpose, {
      fill: (draft) => draft.addValue(entryKind.resize, sizeBytes),
      missing: () => neverOpened(name),
      unknown: (cause) => shrinkUnknown(name, sizeBytes, cause),
    });
    // It has happened; where this fails ClusterRollback.tend() sees to it, by what the replicas say.
    await this.#options.catalog.change(record.id, (one) => ({ ...one, sizeBytes })).catch(() => undefined);
  }
}

function neverOpened(name: string): VarveError {
  return new VarveError("NothingWritten", "Invalid", `volume ${name} was never opened: it has no log`, {
    hint: "Nothing is on it: delete it and make it in the size that it is to have. Nothing was changed.",
    fields: { name },
  });
}

function shrinkUnknown(name: string, sizeBytes: number, cause: VarveError): VarveError {
  return new VarveError(
    "ShrinkUnknown",
    "Retry",
    `whether volume ${name} has ${sizeBytes} bytes now is not known: ${cause.message}`,
    {
      hint: `Try again when the NATS servers answer: the same size told again changes nothing more. Until then varve volume show ${name} may say the size of before.`,
      fields: { name, sizeBytes },
      cause,
    },
  );
}
