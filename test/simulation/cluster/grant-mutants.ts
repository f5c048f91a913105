/*
 * Deliberate bugs in reads of an image by a gateway on its node's host: each breaks one rule of docs/specs/cluster.md, "Reads on the same
 * host". Part of clusterMutants (cluster-mutants.ts).
 */
import {
  decodeReadGrant,
  encodeReadGrant,
  isBadReadGrant,
  type ReadGrantNote,
  readGrantBytes,
} from "#shared/formats/read-grant.ts";
import { decodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { overriding } from "../mutant.ts";
import { type Beside, type ClusterMutant, clusterMutant, type HostStore } from "./cluster-mutant.ts";

const isNote = (path: string): boolean => path.endsWith(".grant");
const newerThanAll = 2 ** 50;

/** A gateway that takes notes for what they are not; `seen` is made for each note that is opened. */
function misread(files: HostStore, seen: () => (note: ReadGrantNote) => ReadGrantNote): HostStore {
  return {
    open: async (path, options) => {
      const file = await files.open(path, options);
      if (!isNote(path)) return file;
      const see = seen();
      return overriding(file, {
        readInline: (slab, start, length, offset) => {
          const got = file.readInline(slab, start, length, offset);
          const bytes = slab.bytes.subarray(start, start + readGrantBytes);
          const note = got === readGrantBytes ? decodeReadGrant(bytes) : null;
          if (note !== null && !isBadReadGrant(note)) encodeReadGrant(bytes, see(note));
          return got;
        },
      });
    },
  };
}

/** A node that leaves the note as it finds it when it opens the image. */
function leftAsItWas(store: FileStore): FileStore {
  return overriding(store, {
    open: async (path, options) => {
      const file = await store.open(path, options);
      if (!isNote(path)) return file;
      let isFirst = true;
      return overriding(file, {
        writeInline: (pieces, offset) => {
          if (!isFirst) file.writeInline(pieces, offset);
          isFirst = false;
        },
      });
    },
  });
}

const withFiles = ({ files, ...rest }: Beside, change: (files: HostStore) => HostStore): Beside => ({
  ...rest,
  files: files === null ? null : change(files),
});

/** What the node says counts for whatever file stands at that path here. */
function provenByPath({ files, bus, clock }: Beside): Beside {
  let granted: { readonly token: string; readonly node: string } | null = null;
  const appliedLsns = new Map<string, number>();
  const seen = (note: ReadGrantNote): ReadGrantNote =>
    granted === null ? note : { token: granted.token, appliedLsn: appliedLsns.get(granted.node) ?? 0 };
  return {
    clock,
    files: files === null ? null : misread(files, () => seen),
    bus: overriding(bus, {
      subscribe: (pattern, listener) =>
        bus.subscribe(pattern, (data, subject) => {
          const decoded = decodeMessage(data);
          if (!isBadMessage(decoded) && decoded.message.type === "state") {
            appliedLsns.set(decoded.message.report.node, decoded.message.report.appliedLsn);
          }
          listener(data, subject);
        }),
      request: async (subject, data, timeoutMs) => {
        const answer = await bus.request(subject, data, timeoutMs);
        const decoded = decodeMessage(answer);
        const node = [...appliedLsns.keys()].find((name) => subject.split(".").includes(name));
        if (!isBadMessage(decoded) && decoded.message.type === "granted" && node !== undefined) {
          granted = { token: decoded.message.token, node };
        }
        return answer;
      },
    }),
  };
}

/** What a node said once is heard again each second. */
function heardForEver({ files, bus, clock }: Beside): Beside {
  const subscribe: Beside["bus"]["subscribe"] = (pattern, listener) => {
    const last = new Map<string, Uint8Array>();
    const repeat = (): void => {
      for (const [subject, data] of last) listener(Uint8Array.from(data), subject);
      clock.after(1000, repeat);
    };
    clock.after(1000, repeat);
    return bus.subscribe(pattern, (data, subject) => {
      last.set(subject, Uint8Array.from(data));
      listener(data, subject);
    });
  };
  return { files, clock, bus: overriding(bus, { subscribe }) };
}

export const grantMutants: readonly ClusterMutant[] = [
  clusterMutant("a grant that was taken back goes on", {
    beside: (parts) =>
      withFiles(parts, (files) =>
        misread(files, () => {
          let good: ReadGrantNote | null = null;
          return (note) => {
            good = good !== null && note.token !== good.token ? good : note;
            return good;
          };
        }),
      ),
  }),
  clusterMutant("what a node granted before it was killed goes on while it replays", {
    store: leftAsItWas,
  }),
  clusterMutant("a granted image is new enough for every read", {
    beside: (parts) =>
      withFiles(parts, (files) =>
        misread(files, () => ({ token }) => ({ token, appliedLsn: token === null ? 0 : newerThanAll })),
      ),
  }),
  clusterMutant("an image at the granted path is the granted one", { beside: provenByPath }),
  clusterMutant("a node that is silent counts as alive", { beside: heardForEver }),
];
