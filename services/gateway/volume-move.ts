/*
 * The way of a volume's bytes from a data directory into a cluster: opens the arriving volume at a gateway, waiting until the gateway
 * knows it and a replica is there, and copies. `varve volume move` calls it inside VolumeHost.moveAway().
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { MoveStep } from "#shared/ports/failpoint.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { arrivingPrefix } from "./engine/cluster-exports.ts";
import type { MoveSource } from "./engine/moved-volumes.ts";
import { RelayLink } from "./engine/relay-link.ts";
import { type CopyFigures, type CopyOptions, copyVolume } from "./engine/volume-copy.ts";

export type { CopyFigures, MoveSource };

export interface MoveTarget extends Pick<CopyOptions, "fresh" | "onProgress"> {
  /** HOST:PORT of a gateway. */
  readonly gateway: string;
  readonly clock: Clock;
  readonly allocateSlab: (bytes: number) => Slab;
  readonly failpoint: (step: MoveStep) => void;
}

/** The catalogue reaches a gateway in a moment; a dead gateway's lease is waited for. */
const openedMs = 30_000;
const askedAgainMs = 250;

export async function copyIntoCluster(source: MoveSource, target: MoveTarget): Promise<CopyFigures> {
  const { record, disk } = source;
  const link = await openTarget(record.name, target);
  try {
    if (link.sizeBytes !== record.sizeBytes) throw otherSize(record.name, record.sizeBytes, link.sizeBytes);
    return await copyVolume({
      ...target,
      source: disk,
      target: link,
      onPiece: () => target.failpoint("move-copying"),
    });
  } catch (cause) {
    throw stopped(record.name, toVarveError(cause, `move volume ${record.name}`));
  } finally {
    link.close();
  }
}

async function openTarget(name: string, { gateway, clock }: MoveTarget): Promise<RelayLink> {
  const endMs = clock.monotonicMs() + openedMs;
  for (;;) {
    try {
      return await RelayLink.open(
        { address: gateway, exportName: `${arrivingPrefix}${name}` },
        clock,
        () => undefined,
      );
    } catch (cause) {
      if (clock.monotonicMs() > endMs) throw unreachable(name, gateway, cause);
    }
    await new Promise<void>((resolve) => {
      clock.after(askedAgainMs, resolve);
    });
  }
}

function unreachable(name: string, gateway: string, cause: unknown): VarveError {
  const why = cause instanceof VarveError ? cause.message : String(cause);
  return new VarveError("MoveGatewayError", "Retry", `volume ${name} can't be filled: ${why}`, {
    hint: "Is --gateway the NBD address of a gateway of this cluster, and are its storage nodes up? Run the command again: it goes on.",
    fields: { name, gateway },
    cause,
  });
}

function stopped(name: string, cause: VarveError): VarveError {
  if (cause.kind !== "Retry") return cause;
  return new VarveError("MoveStoppedError", "Retry", `the move of volume ${name} stopped: ${cause.message}`, {
    hint: "The volume is where it was. Run the command again: what is there already is compared, the rest is copied.",
    fields: { name },
    cause,
  });
}

function otherSize(name: string, ours: number, theirs: number): VarveError {
  return new VarveError(
    "ArrivalDiffersError",
    "Invalid",
    `volume ${name} has ${ours} bytes, in the cluster ${theirs}`,
    { hint: "Delete what is half there in the cluster, then move it again.", fields: { name, ours, theirs } },
  );
}
