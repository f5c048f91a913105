// Runs the WriteLog contract on the JetStream log over a real server, and over a cluster of three with three replicas.
import { afterAll, beforeAll, describe } from "vitest";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import { type LogHouse, writeLogContract } from "../contract/write-log.contract.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { allocate, LogLab } from "./jetstream-house.ts";

for (const servers of [1, 3]) {
  describe(`JetStream with ${servers} server${servers === 1 ? "" : "s"}`, () => {
    let running: NatsServers;
    beforeAll(async () => {
      running = await NatsServers.start({ servers });
    });
    afterAll(async () => {
      await running.stop();
    });

    writeLogContract(`JetStream, ${servers} replicas`, async ({ logBytesMax }): Promise<LogHouse> => {
      const lab = new LogLab(running, servers);
      const connection = await lab.connect();
      const parts = lab.parts(connection, { logBytesMax });
      return {
        allocate,
        storedIsDurable: true,
        build: () => new JetStreamWriteLog(parts),
        dispose: async () => {
          const manager = await lab.manager();
          await manager.streams.delete(lab.stream).catch(() => undefined); // a log that was refused has none
          await lab.close();
        },
      };
    });
  });
}
