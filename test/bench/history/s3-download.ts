// What an S3 server gives the plain AWS client: whole objects by parallel GETs, received into memory and thrown away. The measure that
// fills and rescues are held against, in the same run. Caller: fill-rows.ts.

import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import type { S3Server } from "../../tools/s3-servers.ts";

export const downloadsAtOnce = 8;

/** Megabytes a second over all the keys, with downloadsAtOnce GETs under way. */
export async function downloadRate(
  server: S3Server,
  under: string,
  keys: readonly string[],
): Promise<number> {
  const { Bucket, prefix } = bucketOf(server.url(under));
  const client = new S3Client({
    endpoint: server.endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: {
      accessKeyId: server.env.AWS_ACCESS_KEY_ID,
      secretAccessKey: server.env.AWS_SECRET_ACCESS_KEY,
    },
    requestHandler: { httpAgent: { maxSockets: downloadsAtOnce, keepAlive: true } },
  });
  let bytes = 0;
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let key = keys[next++]; key !== undefined; key = keys[next++]) {
      const answer = await client.send(new GetObjectCommand({ Bucket, Key: `${prefix}/${key}` }));
      bytes += (await answer.Body?.transformToByteArray())?.length ?? 0;
    }
  };
  const startedAtMs = performance.now();
  await Promise.all(Array.from({ length: downloadsAtOnce }, worker));
  const seconds = (performance.now() - startedAtMs) / 1000;
  client.destroy();
  return bytes / 1e6 / seconds;
}

function bucketOf(url: string): { Bucket: string; prefix: string } {
  const { hostname, pathname } = new URL(url);
  return { Bucket: hostname, prefix: pathname.slice(1) };
}
