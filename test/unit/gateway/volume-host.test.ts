// The volume host on memory adapters and stand-in sessions: order of changes, refusals, and what a crash or a failure in the
// middle of each change leaves behind. The catalogue's content plays the disk: a new host on it is the next start.
// With real files and clients: test/e2e/.
import { beforeEach, describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import {
  emptyCatalogContent,
  type MemoryCatalogContent,
  MemoryVolumeCatalog,
} from "#shared/adapters/volume-catalog/memory.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import { SessionExtents } from "../../../services/gateway/engine/session-extents.ts";
import { VolumeHost } from "../../../services/gateway/engine/volume-host.ts";
import type { HostedSession, VolumeParts } from "../../../services/gateway/engine/volume-parts.ts";
import type { VolumeSessionStatus } from "../../../services/gateway/engine/volume-session.ts";

/** What these tests never ask of a session: its past has its own tests (past-changes.test.ts). */
const notHere = (): never => {
  throw new Error("not part of this test");
};

class FakeSession implements HostedSession {
  /** Of it, only its room. */
  readonly hotLog = (): ReturnType<HostedSession["hotLog"]> => ({
    line: "",
    state: notHere,
    read: notHere,
    pin: notHere,
    follow: notHere,
    room: () => ({ diskBytes: 0, limitBytes: 2 ** 30 }),
  });
  readonly baseImage = notHere;
  readonly held = notHere;
  readonly mark = notHere;
  readonly rollback = notHere;
  readonly extents = new SessionExtents(undefined, undefined);

  sizeBytes: number;
  attachedClients = 0;
  closed = false;
  error: VarveError | null = null;
  private readonly record: VolumeRecord;

  constructor(record: VolumeRecord) {
    this.record = record;
    this.sizeBytes = record.sizeBytes;
  }

  openExport(description: string): BlockExport {
    this.attachedClients += 1;
    return { name: this.record.name, description, sizeBytes: this.sizeBytes } as unknown as BlockExport;
  }

  async sync(): Promise<void> {}

  async resize(sizeBytes: number): Promise<void> {
    await Promise.resolve();
    this.sizeBytes = sizeBytes;
  }

  status(): VolumeSessionStatus {
    return {
      state: this.error === null ? "serving" : "halted",
      error: this.error,
      attachedClients: this.attachedClients,
      log: { line: "l", epoch: 1, oldestLsn: 1, lastLsn: 2, durableLsn: 2, diskBytes: 3 },
      image: { appliedLsn: 2, checkpointLsn: 1, allocatedBytes: 4 },
      overlayRanges: 0,
      counters: {},
    } as unknown as VolumeSessionStatus;
  }

  async close(): Promise<void> {
    this.closed = true;
    if (this.error !== null) throw this.error;
  }
}

class FakeParts implements VolumeParts {
  readonly sessions = new Map<string, FakeSession>();
  readonly calls: string[] = [];
  readonly broken = new Set<string>();
  readonly homes = null;
  readonly keepsLog = false;
  readonly tending = { capacity: null, fillBytesPerSecond: null };
  private readonly store: MemoryFileStore;

  constructor(store: MemoryFileStore) {
    this.store = store;
  }

  async createImage(record: VolumeRecord, paths: { image: string }): Promise<void> {
    this.step(`create ${record.name}`);
    const file = await this.store.open(paths.image, { create: true, access: "buffered" });
    await file.close();
  }

  async openSession(record: VolumeRecord): Promise<HostedSession> {
    this.step(`open ${record.name} ${record.durability}`);
    const session = new FakeSession(record);
    this.sessions.set(record.name, session);
    return session;
  }

  async image(operation: "check" | "adopt" | "discard", record: VolumeRecord) {
    this.step(`${operation} ${record.name}`);
    return { name: record.name, clean: true, findings: [], fields: {} };
  }

  session(name: string): FakeSession {
    const session = this.sessions.get(name);
    if (session === undefined) throw new Error(`no session of ${name}`);
    return session;
  }

  private step(what: string): void {
    this.calls.push(what);
    const word = what.split(" ", 2).join(" ");
    if (this.broken.has(word)) throw new VarveError("BrokenError", "Internal", `${word} failed`);
  }
}

let store: MemoryFileStore;
let parts: FakeParts;
let content: MemoryCatalogContent;
let ids = 0;

beforeEach(() => {
  store = new MemoryFileStore();
  parts = new FakeParts(store);
  content = emptyCatalogContent();
  ids = 0;
});

const open = async (options: { create?: boolean } = {}): Promise<VolumeHost> => {
  // The catalogue in memory leaves no file; the directory must look as one of ours does.
  if (content.records !== null) await store.replaceWhole("/data/catalog.json", Buffer.from("{}"));
  return await VolumeHost.open({
    dataDirectory: "/data",
    create: options.create ?? true,
    store,
    catalog: new MemoryVolumeCatalog(content),
    clock: { wallTimeMs: () => 1000, monotonicMs: () => 0, after: () => ({ cancel() {} }), soon() {} },
    random: {
      hex: (bytes) => (ids += 1).toString(16).padStart(bytes * 2, "0"),
      next: () => 0.5,
    },
    parts,
    memory: { acquire: () => null, release: () => undefined },
  });
};
const serving = async (...names: string[]): Promise<VolumeHost> => {
  const host = await open();
  await host.serve();
  for (const name of names) await host.create(aDisk(name));
  return host;
};
const aDisk = (name: string) => ({ name, sizeBytes: 4096, durability: "write" as const });
const tagOf = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (error: { _tag?: string; message: string }) => error._tag ?? error.message,
  );
const stored = (): string[] => (content.records ?? []).map((record) => `${record.name} ${record.state}`);

describe("create", () => {
  test("makes a volume that serves at once and is there after a restart", async () => {
    const host = await serving("disk0");
    expect(host.show("disk0")).toMatchObject({
      condition: "serving",
      imagePath: "/data/volumes/disk0/disk.raw",
    });
    expect((await host.exports.open("disk0"))?.description).toBe("4K durability=write");
    await host.close();
    expect(parts.session("disk0").closed).toBe(true);
    const again = await open({ create: false });
    expect(again.list().map((view) => `${view.name} ${view.condition}`)).toEqual(["disk0 closed"]);
  });

  test("refuses bad names, bad sizes, a name that exists and a directory that is nobody's", async () => {
    const host = await serving("disk0");
    expect(await tagOf(host.create(aDisk("Disk")))).toBe("VolumeNameError");
    expect(await tagOf(host.create({ ...aDisk("a"), sizeBytes: 100 }))).toBe("VolumeSizeError");
    expect(await tagOf(host.create(aDisk("disk0")))).toBe("VolumeExistsError");
    await store.makeDirectory("/data/volumes/old");
    expect(await host.strangers()).toEqual(["old"]);
    expect(await tagOf(host.create(aDisk("old")))).toBe("VolumeDirectoryTakenError");
    expect(stored()).toEqual(["disk0 active"]);
  });

  test("two calls for one name: the second is refused", async () => {
    const host = await serving();
    const both = await Promise.all([tagOf(host.create(aDisk("a"))), tagOf(host.create(aDisk("a")))]);
    expect(both).toEqual(["no error", "VolumeExistsError"]);
  });

  test.each(["create a", "open a"])("a failure at '%s' leaves nothing behind", async (step) => {
    const host = await serving();
    parts.broken.add(step);
    expect(await tagOf(host.create(aDisk("a")))).toBe("BrokenError");
    expect(stored()).toEqual([]);
    expect(await store.list("/data/volumes")).toEqual([]);
    parts.broken.clear();
    expect(await tagOf(host.create(aDisk("a")))).toBe("no error");
  });

  test("a crash in the middle is cleaned up at the next start", async () => {
    const host = await serving("kept");
    const record = content.records?.[0];
    if (record === undefined) throw new Error("no record");
    await host.close();
    content.records = [record, { ...record, id: "00000000000000ff", name: "half", state: "creating" }];
    await store.makeDirectory("/data/volumes/half");
    const again = await open({ create: false });
    expect(again.list().map((view) => view.name)).toEqual(["kept"]);
    expect(stored()).toEqual(["kept active"]);
    expect(await store.list("/data/volumes")).toEqual(["kept"]);
  });
});

describe("delete", () => {
  test("is refused while a client is attached, and removes everything after", async () => {
    const host = await serving("a");
    await host.exports.open("a");
    expect(await tagOf(host.delete("a"))).toBe("VolumeAttachedError");
    expect(stored()).toEqual(["a active"]);
    parts.session("a").attachedClients = 0;
    await host.delete("a");
    expect(await host.exports.open("a")).toBeNull();
    expect(stored()).toEqual([]);
    expect(await store.list("/data/volumes")).toEqual([]);
    expect(await tagOf(host.delete("a"))).toBe("UnknownVolumeError");
  });

  test("a client that comes meanwhile is told to come again", async () => {
    const host = await serving("a");
    const deleting = host.delete("a");
    const attach = tagOf(Promise.resolve().then(async () => host.exports.open("a")));
    expect(await attach).toBe("VolumeBusyError");
    await deleting;
  });

  test("is ended at the next start where the files could not be removed", async () => {
    const host = await serving("a");
    const removeTree = store.removeTree.bind(store);
    store.removeTree = async () => {
      throw new Error("EIO");
    };
    expect(await tagOf(host.delete("a"))).not.toBe("no error");
    expect(stored()).toEqual(["a deleting"]);
    await host.close();
    store.removeTree = removeTree;
    await open({ create: false });
    expect(stored()).toEqual([]);
  });

  test("works on a halted volume", async () => {
    const host = await serving("a");
    parts.session("a").error = new VarveError("LogHaltedError", "Internal", "disk gone");
    expect(host.show("a").condition).toBe("halted");
    await host.delete("a");
    expect(stored()).toEqual([]);
  });
});

describe("resize", () => {
  test("grows while clients are attached", async () => {
    const host = await serving("a");
    await host.exports.open("a");
    expect((await host.resize("a", 8192, false)).sizeBytes).toBe(8192);
    expect(content.records?.[0]?.sizeBytes).toBe(8192);
  });

  test("shrinks only when told to, with nobody attached", async () => {
    const host = await serving("a");
    expect(await tagOf(host.resize("a", 512, false))).toBe("ShrinkNotAllowedError");
    await host.exports.open("a");
    expect(await tagOf(host.resize("a", 512, true))).toBe("VolumeAttachedError");
    parts.session("a").attachedClients = 0;
    expect((await host.resize("a", 512, true)).sizeBytes).toBe(512);
  });

  test("believes the log where the catalogue is one crash behind", async () => {
    const host = await serving("a");
    content.failNextWrite = new Error("EIO");
    expect(await tagOf(host.resize("a", 8192, false))).not.toBe("no error");
    expect(parts.session("a").sizeBytes).toBe(8192);
    expect(content.records?.[0]?.sizeBytes).toBe(4096);
    const openSession = parts.openSession.bind(parts);
    parts.openSession = async (record) => openSession({ ...record, sizeBytes: 8192 });
    await host.close();
    const again = await open();
    await again.serve();
    expect(again.show("a").sizeBytes).toBe(8192);
  });

  test("works offline on a session that is opened for it", async () => {
    await (await serving("a")).close();
    const host = await open({ create: false });
    parts.calls.length = 0;
    await host.resize("a", 8192, false);
    expect(parts.calls).toEqual(["open a write"]);
    expect(parts.session("a").closed).toBe(true);
    expect(host.show("a")).toMatchObject({ sizeBytes: 8192, condition: "closed" });
  });
});

describe("set and image work", () => {
  test("durability changes by closing and opening again", async () => {
    const host = await serving("a");
    parts.calls.length = 0;
    expect((await host.setDurability("a", "flush")).durability).toBe("flush");
    expect(parts.calls).toEqual(["open a flush"]);
    expect(content.records?.[0]?.durability).toBe("flush");
    await host.exports.open("a");
    expect(await tagOf(host.setDurability("a", "write"))).toBe("VolumeAttachedError");
    expect((await host.setDurability("a", "flush")).condition).toBe("serving");
  });

  test("image operations run on a closed volume, which serves again after", async () => {
    const host = await serving("a");
    parts.calls.length = 0;
    await host.checkImage("a");
    await host.adoptImage("a");
    await host.discardImage("a");
    expect(parts.calls).toEqual(["check", "adopt", "discard"].flatMap((one) => [`${one} a`, "open a write"]));
    expect(host.show("a").condition).toBe("serving");
    await host.exports.open("a");
    expect(await tagOf(host.checkImage("a"))).toBe("VolumeAttachedError");
  });

  test("adopting rescues a volume that could not be opened", async () => {
    await (await serving("a", "b")).close();
    const host = await open({ create: false });
    parts.broken.add("open a");
    await host.serve();
    expect(host.list().map((view) => view.condition)).toEqual(["failed", "serving"]);
    expect(await tagOf(host.exports.open("a"))).toBe("BrokenError");
    expect(await tagOf(host.resize("a", 8192, false))).toBe("BrokenError");
    parts.broken.clear();
    await host.adoptImage("a");
    expect(host.show("a")).toMatchObject({ condition: "serving", failure: null });
  });
});

describe("the data directory", () => {
  test("is held by one host at a time", async () => {
    const host = await serving();
    expect(await tagOf(open())).toBe("DataDirectoryHeldError");
    await host.close();
    expect(await tagOf(open())).toBe("no error");
  });

  test("that is missing is made only where that is wanted", async () => {
    expect(await tagOf(open({ create: false }))).toBe("NoDataDirectoryError");
    expect(await store.list("/data")).toEqual([]);
  });

  test("with foreign files is refused and left alone", async () => {
    await store.makeDirectory("/data");
    await store.replaceWhole("/data/letter.txt", Buffer.from("dear"));
    expect(await tagOf(open())).toBe("NotADataDirectoryError");
    expect(await store.list("/data")).toEqual(["letter.txt"]);
  });

  test("with volumes but no catalogue is damage", async () => {
    await store.makeDirectory("/data/volumes/disk0");
    expect(await tagOf(open())).toBe("CatalogMissingError");
    expect(await store.list("/data")).toEqual(["volumes"]);
  });

  test("changes nothing more once it is closing, and a failed close is told", async () => {
    const host = await serving("a", "b");
    parts.session("a").error = new VarveError("LogHaltedError", "Internal", "disk gone");
    const closing = host.close();
    expect(await tagOf(host.create(aDisk("c")))).toBe("HostClosingError");
    expect(await tagOf(closing)).toBe("LogHaltedError");
    expect(parts.session("b").closed).toBe(true);
    expect(await tagOf(open())).toBe("no error");
  });
});
