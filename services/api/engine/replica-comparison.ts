/*
 * Compares some extents of a volume's replicas at one LSN: all hold, the furthest says where, each goes there exactly, checksums are
 * asked for, all go on. Called by replica-placing.ts for one look after the other; answered by
 * services/storage/engine/replica-copies.ts. docs/specs/replica-fill.md, "Comparing".
 */
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { DifferingExtent, ReplicaComparison } from "#shared/ports/cluster-administration.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";

export interface ComparisonSetting {
  readonly bus: MessageBus;
  readonly clock: Clock;
  readonly volumeId: string;
  readonly nodes: readonly string[];
  readonly sizeBytes: number;
  readonly bytesPerSecond: number | null;
}

/** One call of the api takes about so long. */
const lookMs = 3000;
/** A hold ends by itself after this. */
const holdMs = 2000;
const answerMs = 5000;
const noSum = "0".repeat(16);

export async function compareReplicas(
  setting: ComparisonSetting,
  offset: number,
): Promise<ReplicaComparison> {
  const { clock, sizeBytes, bytesPerSecond } = setting;
  const startMs = clock.monotonicMs();
  const differing: DifferingExtent[] = [];
  let at = Math.floor(offset / limits.extentBytes) * limits.extentBytes;
  let lsn = 0;
  let notCompared = 0;
  while (at < sizeBytes && clock.monotonicMs() - startMs < lookMs) {
    const beginMs = clock.monotonicMs();
    const extents = Math.min(limits.replicaHashExtentsMax, Math.ceil((sizeBytes - at) / limits.extentBytes));
    const found = await compareExtents(setting, at, extents);
    lsn = found.lsn;
    differing.push(...found.differing);
    notCompared += found.notCompared;
    at += extents * limits.extentBytes;
    const tookMs = clock.monotonicMs() - beginMs;
    const wantedMs = bytesPerSecond === null ? 0 : (1000 * extents * limits.extentBytes) / bytesPerSecond;
    await pause(clock, Math.max(tookMs, wantedMs - tookMs));
  }
  return { lsn, sizeBytes, nextOffset: at < sizeBytes ? at : null, differing, notCompared };
}

/** Some extents from `offset` on, at most limits.replicaHashExtentsMax. */
export async function compareExtents(
  setting: ComparisonSetting,
  offset: number,
  extents: number,
): Promise<Pick<ReplicaComparison, "lsn" | "differing" | "notCompared">> {
  try {
    const lsn = await holdAll(setting);
    const payloads = await Promise.all(
      setting.nodes.map(async (node) => {
        const { message, payload } = await ask(setting, node, { type: "hash", offset, extents });
        const right =
          message.type === "hashes" && message.appliedLsn === lsn && payload.length === 8 * extents;
        if (!right) throw notHeld(node, lsn);
        return { node, payload };
      }),
    );
    const differing: DifferingExtent[] = [];
    let notCompared = 0;
    for (let index = 0; index < extents; index += 1) {
      const sums = payloads.map(({ node, payload }) => ({
        node,
        sum: payload
          .readBigUInt64LE(index * 8)
          .toString(16)
          .padStart(16, "0"),
      }));
      // In the bucket only, as far as that node is concerned.
      const here = sums.filter(({ sum }) => sum !== noSum);
      if (here.length < sums.length) notCompared += 1;
      if (here.every(({ sum }) => sum === here[0]?.sum)) continue;
      differing.push({ offset: offset + index * limits.extentBytes, sums: here });
    }
    return { lsn, differing, notCompared };
  } finally {
    await Promise.all(
      setting.nodes.map(async (node) =>
        ask(setting, node, { type: "hold", lsn: 0, holdMs: 0 }).catch(() => undefined),
      ),
    ); // a hold that could not be ended ends by itself
  }
}

/** Each stands at the LSN that it resolves with, and stays there for a while. */
async function holdAll(setting: ComparisonSetting): Promise<number> {
  const hold = async (lsn: number): Promise<readonly number[]> =>
    await Promise.all(
      setting.nodes.map(async (node) => {
        const { message } = await ask(setting, node, { type: "hold", lsn, holdMs });
        if (message.type !== "held") throw notHeld(node, lsn);
        return message.appliedLsn;
      }),
    );
  const furthest = Math.max(...(await hold(0)));
  const stands = await hold(furthest);
  const late = stands.findIndex((lsn) => lsn !== furthest);
  if (late >= 0) throw notHeld(setting.nodes[late] ?? "", furthest);
  return furthest;
}

async function ask(
  { bus, volumeId }: ComparisonSetting,
  node: string,
  message: ReplicaMessage,
): Promise<{ readonly message: ReplicaMessage; readonly payload: Buffer }> {
  const answer = decodeMessage(
    await bus.request(replicaCopySubject(volumeId, node), encodeMessage(message), answerMs),
  );
  if (isBadMessage(answer)) throw notHeld(node, 0);
  if (answer.message.type !== "refused") return answer;
  throw new VarveError(answer.message.tag, "Retry", `${node}: ${answer.message.message}`);
}

function notHeld(node: string, lsn: number): VarveError {
  return new VarveError(
    "ReplicaNotHeld",
    "Retry",
    `${node} did not stay at LSN ${lsn} while it was compared`,
    {
      hint: "Try again; under load its node may be too slow.",
      fields: { node, lsn },
    },
  );
}

function pause(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(ms, resolve);
  });
}
