// What an S3 server gives the plain AWS client: the measure that fills and rescues are held against, in the same run. Caller:
// fill-rows.ts. The client is s3-download-program.ts.

import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import type { S3Server } from "../../tools/s3-servers.ts";

export interface Download {
  readonly endpoint: string;
  readonly bucket: string;
  readonly keys: readonly string[];
  readonly atOnce: number;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export const downloadsAtOnce = 8;

/** Megabytes a second over all the keys below a prefix, with downloadsAtOnce GETs under way. */
export async function downloadRate(
  server: S3Server,
  under: string,
  keys: readonly string[],
): Promise<number> {
  const { hostname, pathname } = new URL(server.url(under));
  const download: Download = {
    endpoint: server.endpoint,
    bucket: hostname,
    keys: keys.map((key) => `${pathname.slice(1)}/${key}`),
    atOnce: downloadsAtOnce,
    accessKeyId: server.env.AWS_ACCESS_KEY_ID,
    secretAccessKey: server.env.AWS_SECRET_ACCESS_KEY,
  };
  const program = fileURLToPath(new URL("./s3-download-program.ts", import.meta.url));
  const child = spawn(process.execPath, [program], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(JSON.stringify(download));
  const rate = Number(await text(child.stdout));
  if (!(rate > 0)) throw new Error("the AWS client downloaded nothing");
  return rate;
}
