// The object store contract on real S3 servers: the default one in `npm test`, all of them by `npm run test:s3` (which names
// them in VARVE_TEST_S3_SERVERS).
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import { objectStoreContract } from "../contract/object-store.contract.ts";
import { S3Server, type S3ServerName, s3ServerDefault } from "../tools/s3-servers.ts";

const names = (process.env["VARVE_TEST_S3_SERVERS"] ?? s3ServerDefault).split(",") as S3ServerName[];

for (const name of names) {
  objectStoreContract(name, async () => {
    const server = await S3Server.start(name);
    const open = () =>
      openObjectStore(server.url("contract/suite"), {
        clock: new SystemClock(),
        random: new SystemRandom(),
        environment: server.env,
      });
    const store = await open();
    const other = await open();
    return {
      store,
      other,
      conditionalPut: "whatever",
      dispose: async () => {
        await store.close();
        await other.close();
        await server.stop();
      },
    };
  });
}
