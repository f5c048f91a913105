/*
 * Handlers of the HTTP API for the bucket as a whole: each turns a request into one call of BucketAdministration. routes.ts joins
 * them with the others.
 */
import * as Effect from "effect/Effect";
import * as HttpServerResponse from "effect/http/HttpServerResponse";
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder";
import { bodies, varveApi } from "#shared/api/http-api.ts";
import { jobBody } from "#shared/api/past-body.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BucketAdministration } from "#shared/ports/bucket-administration.ts";
import { fromPort } from "#shared/shell/run-process.ts";
import { answered } from "./answered.ts";
import type { ApiSubject } from "./api-subject.ts";
import { notACluster } from "./cluster-routes.ts";
import { readBody } from "./request-body.ts";

export const bucketRoutes = (subject: ApiSubject) => {
  const bucket = (): BucketAdministration => {
    const found = subject.bucket();
    if (found !== null) return found;
    throw new VarveError("NoBucketError", "Invalid", "this server has no bucket", {
      hint: "It was started with --bucket none. Start it with a bucket to keep history.",
    });
  };
  const accepted = (job: ReturnType<BucketAdministration["check"]>) =>
    HttpServerResponse.jsonUnsafe(jobBody(job), { status: 202 });
  return HttpApiBuilder.group(varveApi, "bucket", (handlers) =>
    handlers
      .handle("usage", () => answered(fromPort("sum up the bucket", async () => bucket().usage())))
      .handleRaw("check", ({ request }) =>
        answered(
          Effect.gen(function* () {
            const { quick } = yield* readBody(request, bodies.Check);
            return accepted(
              yield* fromPort("check the bucket", async () => bucket().check({ quick: quick ?? false })),
            );
          }),
        ),
      )
      .handleRaw("collect", ({ request }) =>
        answered(
          Effect.gen(function* () {
            const { dryRun, acceptClock } = yield* readBody(request, bodies.Collect);
            const options = { dryRun: dryRun ?? false, acceptClock: acceptClock ?? false };
            return accepted(yield* fromPort("collect", async () => bucket().collect(options)));
          }),
        ),
      )
      .handleRaw("scrub", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { repair, bytesPerSecond, node } = yield* readBody(request, bodies.Scrub);
            if (node !== undefined && subject.cluster === undefined) throw notACluster();
            const options = {
              repair: repair ?? false,
              node: node ?? null,
              bytesPerSecond: checkedRate(bytesPerSecond ?? limits.scrub.bytesPerSecond),
            };
            return accepted(yield* fromPort("scrub", async () => bucket().scrub(params.name, options)));
          }),
        ),
      )
      .handle("report", ({ params }) =>
        answered(fromPort("show a report", async () => bucket().report(params.id))),
      )
      .handle("deleted", () =>
        answered(fromPort("list deleted volumes", async () => bucket().deletedVolumes())),
      )
      .handle("undelete", ({ params, query }) =>
        answered(fromPort("undelete a volume", async () => bucket().undelete(params.name, query.as))),
      ),
  );
};

function checkedRate(bytesPerSecond: number): number {
  if (bytesPerSecond >= 1) return bytesPerSecond;
  throw new VarveError("RateError", "Invalid", `bytesPerSecond: ${bytesPerSecond} is no rate`, {
    hint: "Bytes a second, at least 1.",
  });
}
