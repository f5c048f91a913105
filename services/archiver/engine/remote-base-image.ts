/*
 * The replicas of one volume on storage nodes, as bases are read from them: each read asks for at least the base's `s`, each answer
 * says how far its node had begun to apply when all was read, and the greatest of them is the base's `e` (docs/specs/archive.md#bases,
 * docs/adr/013-archiver-process.md). Made by archived-volume.ts for one tenure; the messages are docs/formats/replica-message.md.
 */
import { replicaReadSubject, replicaStateSubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import {
  type DecodedMessage,
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
  surveyExtentsMax,
} from "#shared/formats/replica-message.ts";
import { messageMemory } from "#shared/memory/message-memory.ts";
import type { BaseImage } from "#shared/ports/archive.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { MessageBus, Subscription } from "#shared/ports/message-bus.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";

export interface RemoteBaseImageOptions {
  readonly bus: MessageBus;
  readonly clock: Clock;
  readonly volumeId: string;
  /** Storage nodes that keep a replica now, by the placement. */
  readonly nodes: () => readonly string[];
  /** Before any replica was heard of. */
  readonly sizeBytes: number;
}

const { extentBytes } = limits;
const answerMs = 5000;
const behindWaitMs = 1000;

export class RemoteBaseImage implements BaseImage {
  readonly #options: RemoteBaseImageOptions;
  readonly #subscription: Subscription;
  readonly #heard = new Map<string, { readonly report: ReplicaReport; readonly atMs: number }>();
  /** Of the base under way. */
  #leastLsn = 0;
  #begunLsn = 0;
  /** A bit for each extent, by parts of surveyExtentsMax; empty before the first survey: then all may hold bytes. */
  #bits: readonly Buffer[] = [];

  constructor(options: RemoteBaseImageOptions) {
    this.#options = options;
    const subject = replicaStateSubject(options.volumeId, "*");
    this.#subscription = options.bus.subscribe(subject, (data) => this.#hear(data));
  }

  state(): { readonly sizeBytes: number; readonly appliedLsn: number; readonly begunLsn: number } {
    const best = this.#going()[0];
    const appliedLsn = best?.appliedLsn ?? 0;
    const sizeBytes = best?.sizeBytes ?? this.#options.sizeBytes;
    return { sizeBytes, appliedLsn, begunLsn: Math.max(this.#begunLsn, this.#leastLsn) };
  }

  async survey(lsn: number): Promise<void> {
    this.#leastLsn = lsn;
    this.#begunLsn = lsn;
    const extents = Math.ceil(this.state().sizeBytes / extentBytes);
    const bits: Buffer[] = [];
    for (let first = 0; first < extents; first += surveyExtentsMax) {
      const count = Math.min(surveyExtentsMax, extents - first);
      const request = { type: "survey", first, count, leastLsn: lsn, waitMs: behindWaitMs } as const;
      const payload = await this.#ask(request, "surveyed", Math.ceil(count / 8));
      bits.push(Buffer.from(payload));
    }
    this.#bits = bits;
  }

  /** By whole extents, as of the survey: what was written since is in the log behind the base's `s`. */
  allocation(offset: number, length: number): readonly AllocationRun[] {
    const first = Math.floor(offset / extentBytes);
    const end = Math.ceil((offset + length) / extentBytes);
    const allocated = this.#mayHoldBytes(first);
    let next = first + 1;
    while (next < end && this.#mayHoldBytes(next) === allocated) next += 1;
    return [{ offset, length: Math.min(length, next * extentBytes - offset), allocated }];
  }

  /** A node whose bytes are in the bucket only refuses to give them. */
  isLocal(): boolean {
    return true;
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    for (let at = 0; at < length; at += limits.replicaReadBytesMax) {
      const bytes = Math.min(limits.replicaReadBytesMax, length - at);
      const request = {
        ...({ type: "extent", offset: offset + at, length: bytes } as const),
        leastLsn: this.#leastLsn,
        waitMs: behindWaitMs,
      };
      messageMemory.place(await this.#ask(request, "extentBytes", bytes), slab.bytes, start + at);
    }
  }

  close(): void {
    this.#subscription.close();
  }

  #mayHoldBytes(extent: number): boolean {
    const bits = this.#bits[Math.floor(extent / surveyExtentsMax)];
    const at = extent % surveyExtentsMax;
    const byte = bits?.[Math.floor(at / 8)];
    // Behind what was asked for: a disk that grew since.
    return byte === undefined || ((byte >> (at % 8)) & 1) === 1;
  }

  /** Replicas that go on, the furthest first. */
  #going(): readonly ReplicaReport[] {
    const { nodes, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const placed = nodes();
    return [...this.#heard.values()]
      .filter(({ report, atMs }) => nowMs - atMs <= limits.replicaSilentMs && placed.includes(report.node))
      .map(({ report }) => report)
      .filter(({ condition }) => condition !== "halted")
      .sort((a, b) => b.appliedLsn - a.appliedLsn || (a.node < b.node ? -1 : 1));
  }

  /** The first good answer, one node after the other. */
  async #ask(request: ReplicaMessage, type: "surveyed" | "extentBytes", bytes: number): Promise<Buffer> {
    const { bus, volumeId } = this.#options;
    let failure: VarveError | null = null;
    for (const { node } of this.#going()) {
      try {
        const data = await bus.request(replicaReadSubject(volumeId, node), encodeMessage(request), answerMs);
        return this.#take(node, decodeMessage(data), type, bytes);
      } catch (cause) {
        failure = toVarveError(cause, "read a replica");
      }
    }
    const why = failure === null ? "none is heard of" : failure.message;
    throw new VarveError(
      "NoReplicaForBase",
      "Retry",
      `no replica of volume ${volumeId} gives bytes: ${why}`,
      {
        hint: "A base is taken when one does. Look whether its storage nodes run: varve node list.",
        fields: { volumeId },
      },
    );
  }

  #take(
    node: string,
    decoded: DecodedMessage | ReturnType<typeof decodeMessage>,
    type: "surveyed" | "extentBytes",
    bytes: number,
  ): Buffer {
    if (isBadMessage(decoded)) throw badAnswer(node, decoded.detail);
    const { message, payload } = decoded;
    if (message.type === "refused") {
      throw new VarveError(message.tag, message.kind, `${node}: ${message.message}`);
    }
    if (message.type !== type || payload.length !== bytes) throw badAnswer(node, message.type);
    if (message.appliedLsn < this.#leastLsn) throw badAnswer(node, `it is at LSN ${message.appliedLsn}`);
    this.#begunLsn = Math.max(this.#begunLsn, message.begunLsn);
    return payload;
  }

  #hear(data: Uint8Array): void {
    const decoded = decodeMessage(data);
    if (isBadMessage(decoded) || decoded.message.type !== "state") return;
    const { report } = decoded.message;
    this.#heard.set(report.node, { report, atMs: this.#options.clock.monotonicMs() });
  }
}

function badAnswer(node: string, detail: string): VarveError {
  return new VarveError("ReplicaAnswerError", "Retry", `${node} gave an answer that is none: ${detail}`);
}
