// Servers that break their promise: acknowledged entries are gone. The writer ends with what it knows, the next one is refused
// where a replica has more (docs/specs/jetstream-log.md, "Resume").
import { afterEach, expect, test, vi } from "vitest";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import { RecordingListener } from "../contract/write-log-drafts.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { LogLab } from "./jetstream-house.ts";
import { SteadyWriter } from "./steady-writer.ts";

let servers: NatsServers | null = null;
let lab: LogLab;
afterEach(async () => {
  await lab.close();
  await servers?.stop();
});

test("entries that were acknowledged and are gone after a restart end the writer, and the log is refused", async () => {
  servers = await NatsServers.start();
  lab = new LogLab(servers);
  const log = new JetStreamWriteLog(lab.parts(await lab.connect(), { openMs: 1000 }));
  const listener = new RecordingListener();
  const writer = await log.open({ writer: "test", durability: "write", listener, knownLsn: 0 });
  const steady = new SteadyWriter(1, writer, listener);
  steady.burst(5);
  await writer.sync();
  await servers.node(0).copyStore();
  steady.burst(5);
  await writer.sync();
  // The store as it was before, as a server without sync leaves it after a power cut.
  await servers.node(0).kill();
  await servers.node(0).putBackStore();
  await servers.node(0).start();
  steady.burst(1);
  await vi.waitFor(() => expect(listener.error).toMatchObject({ kind: "Corrupt", _tag: "LogLostEntries" }), {
    timeout: 30_000,
    interval: 50,
  });
  expect(listener.error).toMatchObject({ fields: { foundLsn: 6, durableLsn: 11 } });
  await expect(lab.gateway({}, { knownLsn: 11 })).rejects.toMatchObject({
    kind: "Corrupt",
    _tag: "LogEndsEarly",
  });
});
