/*
 * Other nodes' images as the source of a fill: the furthest one says where the copy begins, pieces come from all of them at once.
 * Answered by replica-copies.ts there; read by fill-copy.ts. Messages: docs/formats/replica-message.md.
 */
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type PlaceAnswer,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import { messageMemory } from "#shared/memory/message-memory.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { type FillLog, type FillPiece, type FillSource, fillStopped, noRoom } from "./fill-source.ts";

export interface PeerSourceOptions {
  readonly volumeId: string;
  /** Other nodes that keep a replica. */
  readonly peers: readonly string[];
  readonly bus: MessageBus;
  readonly log: FillLog;
  readonly roomBytes: () => number;
  readonly signal: AbortSignal;
}

const answerMs = 5000;
const askMs = 1000;

export class FillFromPeers implements FillSource {
  readonly workers: readonly string[];
  readonly pieceBytesMax = limits.replicaReadBytesMax;
  readonly #options: PeerSourceOptions;
  #leastLsn = 0;

  constructor(options: PeerSourceOptions) {
    this.#options = options;
    this.workers = options.peers.flatMap((peer) =>
      Array.from({ length: limits.replicaCopiesPerPeer }, () => peer),
    );
  }

  get name(): string {
    return this.#options.peers.join(", ") || "other replicas";
  }

  /** The place of the furthest peer, where log and room allow it. */
  async begin(): Promise<PlaceAnswer> {
    const { peers, log, roomBytes } = this.#options;
    const end = await log.end();
    const failures: string[] = [];
    const places = await Promise.all(
      peers.map(async (peer) => {
        try {
          const answer = await this.#ask(peer, { type: "where" }, askMs);
          if (answer.message.type === "place") return { peer, place: answer.message };
          failures.push(`${peer} answers with ${answer.message.type}`);
        } catch (cause) {
          failures.push(`${peer}: ${toVarveError(cause, "ask").message}`);
        }
        return null;
      }),
    );
    const found = places
      .filter((one) => one !== null)
      .filter(({ place }) => place.line !== "" && place.appliedLsn + 1 >= (end?.oldestLsn ?? 1))
      .sort((a, b) => b.place.appliedLsn - a.place.appliedLsn)[0];
    if (found === undefined) throw noPeer(failures);
    const state = (await this.#ask(found.peer, { type: "ask" }, askMs)).message;
    const wantedBytes = state.type === "state" ? state.report.allocatedBytes : 0;
    if (wantedBytes > roomBytes()) throw noRoom(wantedBytes, roomBytes());
    this.#leastLsn = found.place.appliedLsn;
    return found.place;
  }

  async read(peer: string, offset: number, length: number, slab: Slab): Promise<FillPiece> {
    const leastLsn = this.#leastLsn;
    const { message, payload } = await this.#ask(peer, { type: "copy", offset, length, leastLsn }, answerMs);
    if (message.type !== "piece") throw badAnswer(peer, message.type);
    const { skippedBytes, appliedLsn, begunLsn } = message;
    const bytes = skippedBytes + payload.length;
    const fits = bytes >= 1 && bytes <= length && (payload.length > 0 || skippedBytes === length);
    if (!fits || appliedLsn < leastLsn || begunLsn < appliedLsn) throw badAnswer(peer, "a wrong piece");
    if (payload.length > slab.bytes.length) throw badAnswer(peer, "a piece that is too long");
    messageMemory.place(payload, slab.bytes, 0);
    return { skippedBytes, dataBytes: payload.length, begunLsn };
  }

  async end(): Promise<void> {
    // Nothing is open between two requests.
  }

  async #ask(
    peer: string,
    message: ReplicaMessage,
    timeoutMs: number,
  ): Promise<{ readonly message: ReplicaMessage; readonly payload: Buffer }> {
    const { bus, volumeId, signal } = this.#options;
    if (signal.aborted) throw fillStopped();
    const subject = message.type === "ask" ? replicaReadSubject : replicaCopySubject;
    const decoded = decodeMessage(
      await bus.request(subject(volumeId, peer), encodeMessage(message), timeoutMs),
    );
    if (isBadMessage(decoded)) throw badAnswer(peer, decoded.detail);
    if (decoded.message.type !== "refused") return decoded;
    throw new VarveError(decoded.message.tag, "Retry", `${peer}: ${decoded.message.message}`);
  }
}

function badAnswer(peer: string, what: string): VarveError {
  return new VarveError("ReplicaAnswerError", "Retry", `${peer} gave an answer that is none: ${what}`);
}

function noPeer(failures: readonly string[]): VarveError {
  const why = failures.length === 0 ? "none is where the log still goes on" : failures.join("; ");
  return new VarveError("FillNoSource", "Retry", `no other replica can be copied now: ${why}`, {
    hint: "It is tried again. Look at the others: varve replica list.",
  });
}
