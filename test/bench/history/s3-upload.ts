// Another client's work on the S3 server: as many objects a second, as large, as Varve's archiver sent. What a disk without a bucket
// pays for that beside it on the same cores is the server's share, not the archiver's. Caller: archive-rows.ts. The client is
// s3-upload-program.ts.

import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import type { S3Server } from "../../tools/s3-servers.ts";

export interface Upload {
  readonly endpoint: string;
  readonly bucket: string;
  readonly prefix: string;
  readonly objectBytes: number;
  readonly objectsPerSecond: number;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** What was put, and in how long. */
export interface Sent {
  readonly objects: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** Runs `work` while the AWS client puts at the rate of `sent`; throws where the server did not take nine tenths of that. */
export async function besideUploads<T>(
  server: S3Server,
  under: string,
  sent: Sent,
  work: () => Promise<T>,
): Promise<T> {
  const { hostname, pathname } = new URL(server.url(under));
  const upload: Upload = {
    endpoint: server.endpoint,
    bucket: hostname,
    prefix: pathname.slice(1),
    objectBytes: Math.round(sent.bytes / sent.objects),
    objectsPerSecond: sent.objects / sent.seconds,
    accessKeyId: server.env.AWS_ACCESS_KEY_ID,
    secretAccessKey: server.env.AWS_SECRET_ACCESS_KEY,
  };
  const program = fileURLToPath(new URL("./s3-upload-program.ts", import.meta.url));
  const child = spawn(process.execPath, [program], { stdio: ["pipe", "pipe", "inherit"] });
  const said = text(child.stdout);
  const startedAtMs = performance.now();
  child.stdin.write(`${JSON.stringify(upload)}\n`);
  const result = await work().finally(() => child.stdin.end());
  const rate = Number(await said) / (performance.now() - startedAtMs);
  const wanted = sent.bytes / (sent.seconds * 1000);
  if (!(rate > 0.9 * wanted)) {
    throw new Error(`the AWS client put ${Math.round(rate)} of ${Math.round(wanted)} kB/s beside`);
  }
  return result;
}
