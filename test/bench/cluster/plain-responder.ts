// Answers requests over plain NATS, each with the same bytes. Started as a thread by disk-loads.ts.
import { parentPort, workerData } from "node:worker_threads";
import { connectNats } from "#shared/adapters/nats/connect.ts";

const { servers, subject, bytes } = workerData as {
  readonly servers: readonly string[];
  readonly subject: string;
  readonly bytes: number;
};
const connection = await connectNats({ servers, name: "bench responder" });
const body = Buffer.alloc(bytes, 7);
connection.subscribe(subject, { callback: (_error, message) => void message.respond(body) });
await connection.flush();
parentPort?.postMessage("ready", []);
