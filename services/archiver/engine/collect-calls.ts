/*
 * Collections that somebody asks for by the api of a cluster: begun by the archiver that collects the bucket, asked for again until they are
 * done, because they may take hours. Served for as long as the turn lasts (collector-turn.ts); the run is the keeper's.
 */
import { toVarveError } from "#shared/domain/errors.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeWith,
  isBadMessage,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import type { CollectOptions, CollectReport } from "#shared/ports/bucket-administration.ts";

interface Run {
  readonly id: string;
  outcome: { readonly report: CollectReport } | { readonly failure: unknown } | null;
}

export class CollectCalls {
  readonly #collect: (options: CollectOptions) => Promise<CollectReport>;
  /** One at a time: the last that was asked for. */
  #run: Run | null = null;

  constructor(collect: (options: CollectOptions) => Promise<CollectReport>) {
    this.#collect = collect;
  }

  /** Null where the message is none of these. The same run asked for again is told of, not begun again. */
  answer(data: Uint8Array): Uint8Array | null {
    const decoded = decodeMessage(data);
    if (isBadMessage(decoded) || decoded.message.type !== "collect") return null;
    const { run: id, dryRun, acceptClock } = decoded.message;
    if (this.#run?.id !== id) {
      if (this.#run !== null && this.#run.outcome === null)
        return refusal("Retry", "AlreadyRunningError", busy);
      this.#begin(id, { dryRun, acceptClock });
    }
    const outcome = this.#run?.outcome ?? null;
    if (outcome === null) return encodeMessage({ type: "collected", isDone: false });
    if ("report" in outcome) {
      return reported(outcome.report);
    }
    const { kind, _tag: tag, message } = toVarveError(outcome.failure, "collect the bucket");
    return refusal(kind, tag, message);
  }

  #begin(id: string, options: CollectOptions): void {
    const run: Run = { id, outcome: null };
    this.#run = run;
    this.#collect(options).then(
      (report) => {
        run.outcome = { report };
      },
      (failure: unknown) => {
        run.outcome = { failure };
      },
    );
  }
}

/** A message is small: the first of many keys and findings are enough for people. */
const shownMax = 500;

function reported(report: CollectReport): Uint8Array {
  const { keys, findings } = report;
  const shown = { ...report, keys: keys.slice(0, shownMax), findings: findings.slice(0, shownMax) };
  const payload = Buffer.from(JSON.stringify(shown));
  const { bytes, payloadAt } = encodeWith({ type: "collected", isDone: true }, payload.length);
  payload.copy(bytes, payloadAt);
  sealMessage(bytes);
  return bytes;
}

const busy = "a collection of this bucket is under way already";

function refusal(kind: ReturnType<typeof toVarveError>["kind"], tag: string, message: string): Uint8Array {
  return encodeMessage({ type: "refused", kind, tag, message, epoch: 0 });
}
