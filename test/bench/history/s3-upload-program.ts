// The plain AWS client in a process of its own: puts one object after the other in an even beat until it is told to end. Reads one JSON
// line with what to put, prints how many bytes the server took. Started by s3-upload.ts.

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import type { Upload } from "./s3-upload.ts";

const lines = createInterface({ input: process.stdin });
const [line] = await once(lines, "line");
const { endpoint, bucket, prefix, objectBytes, objectsPerSecond, accessKeyId, secretAccessKey } = JSON.parse(
  line as string,
) as Upload;
const client = new S3Client({
  endpoint,
  region: "us-east-1",
  forcePathStyle: true,
  credentials: { accessKeyId, secretAccessKey },
  requestChecksumCalculation: "WHEN_REQUIRED",
});
const body = randomBytes(objectBytes);
let bytes = 0;
let number = 0;
const underWay = new Set<Promise<void>>();
const beat = setInterval(() => {
  number += 1;
  const put = client
    .send(new PutObjectCommand({ Bucket: bucket, Key: `${prefix}/${number}`, Body: body }))
    .then(() => {
      bytes += objectBytes;
      underWay.delete(put);
    });
  underWay.add(put);
}, 1000 / objectsPerSecond);
await once(lines, "close");
clearInterval(beat);
await Promise.all(underWay);
console.log(bytes);
client.destroy();
