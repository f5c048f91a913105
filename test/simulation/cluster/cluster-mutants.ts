/*
 * Deliberate bugs of a cluster: the simulator is worth something only if each of them is caught (docs/specs/cluster-simulation.md).
 * Called by the mutation check and, for the quickest, by simulation.test.ts.
 */
import type { VolumeStream } from "#shared/adapters/write-log/jetstream-stream.ts";
import type { ReplicaState } from "#shared/ports/replica-image.ts";
import { overriding, withFiles } from "../mutant.ts";
import { type ClusterMutant, clusterMutant } from "./cluster-mutant.ts";
import { grantMutants } from "./grant-mutants.ts";

/** A publish goes behind whatever is there, under whatever subject is captured. */
function unconditional(stream: VolumeStream): VolumeStream {
  return overriding(stream, {
    publish: async (epoch, lastSequence, body, answerMs) => {
      const view = await stream.view().catch(() => null);
      return await stream.publish(epoch, view?.lastSequence ?? lastSequence, body, answerMs);
    },
  });
}

const imagePlace = { scheduler: null as never, logDirectory: "", imagePath: "/pool/volumes/disk0/disk.raw" };

export const clusterMutants: readonly ClusterMutant[] = [
  clusterMutant("a message is appended behind whatever is there", { stream: unconditional }),
  clusterMutant("writes are acknowledged before a quorum has them", {
    log: (log) =>
      overriding(log, {
        open: async (options) => {
          const writer = await log.open(options);
          return overriding(writer, {
            append: (draft) => {
              writer.append(draft);
              const lsn = writer.state().lastLsn;
              queueMicrotask(() => options.listener.durable(lsn));
            },
          });
        },
      }),
  }),
  clusterMutant("a publish without an answer counts as stored", {
    stream: (stream) =>
      overriding(stream, {
        publish: async (epoch, lastSequence, body, answerMs) => {
          const answer = await stream.publish(epoch, lastSequence, body, answerMs);
          return typeof answer === "number" || answer.fault !== "noAnswer" ? answer : lastSequence + 1;
        },
      }),
  }),
  clusterMutant("reads ask for no least LSN", {
    replica: (replica) => overriding(replica, { dropped: () => undefined }),
  }),
  clusterMutant("a gateway serves before a replica has what the log has", {
    replica: (replica) =>
      overriding(replica, {
        follow: async (_lastLsn, epoch) => replica.follow(0, epoch),
      }),
  }),
  clusterMutant("log is released up to what is applied", {
    replica: (replica) =>
      overriding(replica, {
        state: (): ReplicaState => {
          const state = replica.state();
          return { ...state, checkpointLsn: state.appliedLsn };
        },
      }),
  }),
  clusterMutant("log is released up to the newest checkpoint of any replica", {
    replica: (replica) =>
      overriding(replica, {
        state: (): ReplicaState => {
          const checkpoints = replica.reports().map(({ checkpointLsn }) => checkpointLsn);
          return { ...replica.state(), checkpointLsn: Math.max(0, ...checkpoints) };
        },
      }),
  }),
  clusterMutant("a fenced session goes on serving", {
    session: (session) => overriding(session, { fence: () => undefined }),
  }),
  clusterMutant("a client is let in by a lease that ran out", {
    leases: (leases) =>
      overriding(leases, {
        take: async (key, terms) => overriding(await leases.take(key, terms), { remainingMs: () => 1 }),
      }),
  }),
  clusterMutant("a follower leaves a batch out", {
    follower: (follower) =>
      overriding(follower, {
        async *follow(from, signal) {
          let count = 0;
          for await (const followed of follower.follow(from, signal)) {
            count += 1;
            if (count % 50 !== 0 || followed.batch.payload.length === 0) yield followed;
            else
              yield {
                ...followed,
                batch: { ...followed.batch, payload: Buffer.alloc(followed.batch.payload.length) },
              };
          }
        },
      }),
  }),
  clusterMutant("the image's sync does nothing", {
    store: (store) =>
      withFiles(store, imagePlace, "image", () => ({
        sync: async () => undefined,
        syncWithTimes: async () => undefined,
      })),
  }),
  ...grantMutants,
];
