/*
 * `volume fill` and `volume tier` in a cluster: the api asks every storage node that keeps a replica, again and again until each is done, and
 * follows as a job. Called by cluster-past.ts; answered by services/storage/engine/kept-extents.ts. Rules: docs/specs/cluster.md#tiering.
 */
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { JobView } from "#shared/ports/past-administration.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import { missingExtents } from "./clone-rules.ts";
import type { ApiJob, ApiJobs } from "./cluster-bucket.ts";

export interface ClusterTieringOptions {
  readonly require: (name: string) => VolumeRecord;
  readonly replicasOf: (record: VolumeRecord) => readonly Pick<ReplicaView, "node" | "report">[];
  readonly past: Pick<PastRecords, "historyOf">;
  readonly bus: MessageBus;
  readonly clock: Clock;
  readonly random: Random;
  readonly jobs: Pick<ApiJobs, "start">;
}

const askMs = 5000;
const againMs = 1000;
const firstLookMs = 200;
/** So often in a row a node may be away while it gives back what is cold: it is asked each second. */
const missesMax = 60;

export class ClusterTiering {
  readonly #options: ClusterTieringOptions;
  #isClosed = false;

  constructor(options: ClusterTieringOptions) {
    this.#options = options;
  }

  /** Every replica fetches all that is in the bucket only. A node that is away goes on when it is back, as long as this api runs. */
  fill(name: string): JobView {
    const record = this.#options.require(name);
    const job = this.#options.jobs.start("fill", name);
    this.#follow(job, async () => this.#filled(record, job));
    return job.view();
  }

  /** Every replica gives back what was not used for so long, behind the newest base that the bucket holds. */
  tier(name: string, coldAfterMs: number | null): JobView {
    const record = this.#options.require(name);
    const history = this.#options.past.historyOf(record.id);
    if (history?.residency !== "tiered") throw staysWhole(name);
    const job = this.#options.jobs.start("tier", name);
    const run = this.#options.random.hex(8);
    const request = { type: "evict", run, coldAfterMs: coldAfterMs ?? history.coldAfterMs } as const;
    this.#follow(job, async () => {
      const nodes = this.#options.replicasOf(record).map(({ node }) => node);
      const counts = await Promise.all(nodes.map(async (node) => this.#evicted(record.id, node, request)));
      const bytes = counts.reduce((sum, count) => sum + count, 0) * limits.extentBytes;
      job.progress(bytes, bytes);
      const told = nodes.map((node, at) => `${node} ${counts[at]}`).join(", ");
      job.done(bytes === 0 ? nothingWent : `extents that are in the bucket only now: ${told}`);
    });
    return job.view();
  }

  close(): void {
    this.#isClosed = true;
  }

  #follow(job: ApiJob, work: () => Promise<void>): void {
    work().catch((cause: unknown) => {
      if (!this.#isClosed) job.failed(cause);
    });
  }

  async #filled(record: VolumeRecord, job: ApiJob): Promise<void> {
    const { replicasOf, require } = this.#options;
    for (;;) {
      require(record.name);
      const views = replicasOf(record);
      const missing = views.map((view) => missingExtents(view, record.sizeBytes));
      const left = missing.reduce((sum, one) => sum + one, 0);
      const total = Math.ceil(record.sizeBytes / limits.extentBytes) * views.length;
      job.progress((total - left) * limits.extentBytes, total * limits.extentBytes);
      if (left === 0) break;
      // A node that was started again meanwhile has forgotten it.
      const asked = views.filter((_, at) => missing[at] !== 0);
      await Promise.all(
        asked.map(async ({ node }) => this.#ask(record.id, node, { type: "fill" }).catch(() => undefined)),
      );
      await this.#pause(againMs);
      if (this.#isClosed) return;
    }
    job.done("every extent is on its storage nodes");
  }

  async #evicted(
    volumeId: string,
    node: string,
    request: Extract<ReplicaMessage, { readonly type: "evict" }>,
  ): Promise<number> {
    let waitMs = firstLookMs;
    for (let misses = 0; ; ) {
      const answer = await this.#ask(volumeId, node, request).catch((cause: unknown) => {
        misses += 1;
        const error = toVarveError(cause, "ask");
        // What the node itself says ends it.
        if (misses >= missesMax || error.fields["node"] !== undefined) throw error;
        return null;
      });
      if (this.#isClosed) return 0;
      if (answer !== null) {
        misses = 0;
        if (answer.type === "evicted" && answer.isDone) return answer.extents;
      }
      await this.#pause(waitMs);
      waitMs = againMs;
    }
  }

  async #ask(volumeId: string, node: string, request: ReplicaMessage): Promise<ReplicaMessage> {
    const subject = replicaCopySubject(volumeId, node);
    const decoded = decodeMessage(await this.#options.bus.request(subject, encodeMessage(request), askMs));
    if (isBadMessage(decoded)) throw new VarveError("TieringAnswerError", "Retry", decoded.detail);
    const { message } = decoded;
    if (message.type !== "refused") return message;
    throw new VarveError(message.tag, message.kind, `${node}: ${message.message}`, { fields: { node } });
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#options.clock.after(ms, resolve);
    });
  }
}

const nothingWent = "no local extent was unused for so long: nothing went";

function staysWhole(name: string): VarveError {
  return new VarveError(
    "ResidencyFullError",
    "Invalid",
    `volume ${name} has residency full: all of it stays on its nodes`,
    { hint: `varve volume set ${name} --residency tiered lets cold extents go.`, fields: { name } },
  );
}
