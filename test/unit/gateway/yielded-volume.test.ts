// A gateway that gives a volume up because the api wants to write to it: refused while clients are attached, unless they are to be cut off;
// the lease is free only when the session is closed. docs/specs/cluster.md#rollback.
import { beforeEach, expect, test } from "vitest";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import { ClusterVolume, type ClusterVolumeSetting } from "../../../services/gateway/engine/cluster-volume.ts";
import { answerHolderCall } from "../../../services/gateway/engine/holder-calls.ts";

const record = { id: "5ca1ab1e00c0ffee", name: "disk0", state: "active" } as VolumeRecord;
const opened = { name: "disk0" } as BlockExport;
let events: string[];
let clients: number;
/** Lets the opening of the session go on. */
let open: () => void;
let volume: ClusterVolume;

beforeEach(() => {
  [events, clients] = [[], 0];
  const { promise, resolve } = Promise.withResolvers<void>();
  open = resolve;
  const session = {
    openExport: () => opened,
    close: async () => {
      await Promise.resolve();
      events.push("session closed");
    },
    get attachedClients() {
      return clients;
    },
  };
  const lease = {
    remainingMs: () => 3000,
    onLost: () => undefined,
    release: async () => void events.push("lease free"),
  };
  const setting = {
    gateway: "g1",
    address: "g1",
    clock: { after: () => ({ cancel: () => undefined }) },
    leases: { take: async () => lease },
    catalog: { fetch: async () => record },
    openSession: async () => {
      await promise;
      return session;
    },
    disconnect: () => events.push("cut off"),
    onNote: () => undefined,
  } as unknown as ClusterVolumeSetting;
  volume = new ClusterVolume(record, setting, () => events.push("gone"));
});

/** As the api asks, and what it is answered. */
async function ask(isForced: boolean): Promise<ReplicaMessage> {
  const session = { sizeBytes: 0, resize: async () => undefined, mark: async () => 0 };
  const request = encodeMessage({ type: "yield", isForced });
  const answer = await answerHolderCall(request, session, async (forced) => volume.giveUp(forced));
  const decoded = decodeMessage(answer ?? Buffer.alloc(0));
  if (isBadMessage(decoded)) throw new Error(decoded.detail);
  return decoded.message;
}

test("with a client it is refused, and goes on", async () => {
  open();
  await volume.open();
  clients = 2;
  const tag = "VolumeAttachedError";
  expect(await ask(false)).toMatchObject({
    type: "refused",
    kind: "Invalid",
    tag,
    message: expect.stringContaining("2 connections"),
  });
  expect(events).toEqual([]);
  expect(await volume.open()).toBe(opened);
});

test("forced, clients are cut off before anything is answered to them, and the lease is free when all is closed", async () => {
  open();
  await volume.open();
  clients = 2;
  const asked = ask(true);
  await expect(volume.open()).rejects.toMatchObject({ _tag: "VolumeMoving", kind: "Retry" });
  expect(await asked).toEqual({ type: "yielded", disconnected: 2 });
  expect(events).toEqual(["cut off", "session closed", "lease free", "gone"]);
});

test("a volume that is being opened is waited for, and whoever came in by then counts", async () => {
  const opening = volume.open().then((one) => {
    clients = 1;
    return one;
  });
  const asked = ask(false);
  open();
  expect(await opening).toBe(opened);
  expect(await asked).toMatchObject({ type: "refused", message: expect.stringMatching(/1 connection$/) });
  clients = 0;
  expect(await ask(false)).toEqual({ type: "yielded", disconnected: 0 });
});
