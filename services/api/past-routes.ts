/*
 * Handlers of the HTTP API for the past: each turns a request into one call of PastAdministration and the answer into JSON.
 * routes.ts joins them with the others.
 */
import * as Effect from "effect/Effect";
import * as HttpServerResponse from "effect/http/HttpServerResponse";
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder";
import { bodies, varveApi } from "#shared/api/http-api.ts";
import {
  changesBody,
  historyBody,
  jobBody,
  policyFrom,
  snapshotBody,
  spanOf,
  startedBody,
  timeFrom,
} from "#shared/api/past-body.ts";
import { byteSizeFrom } from "#shared/domain/byte-size.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { StartedChange } from "#shared/ports/past-administration.ts";
import { fromPort } from "#shared/shell/run-process.ts";
import { answered } from "./answered.ts";
import type { ApiSubject } from "./api-subject.ts";
import { readBody } from "./request-body.ts";

/** A timeline that fits a terminal. */
const intervalsDefault = 24;

export const pastRoutes = (subject: ApiSubject) => {
  const { past } = subject;
  return HttpApiBuilder.group(varveApi, "past", (handlers) =>
    handlers
      .handle("snapshots", ({ params }) =>
        answered(fromPort("list snapshots", async () => past.snapshots(params.name).map(snapshotBody))),
      )
      .handleRaw("createSnapshot", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { name } = yield* readBody(request, bodies.CreateSnapshot);
            const made = yield* fromPort("take a snapshot", async () =>
              past.createSnapshot(params.name, name),
            );
            return HttpServerResponse.jsonUnsafe(snapshotBody(made), { status: 201 });
          }),
        ),
      )
      .handle("deleteSnapshot", ({ params }) =>
        answered(
          fromPort("delete a snapshot", async () => past.deleteSnapshot(params.name, params.snapshot)),
        ),
      )
      .handle("history", ({ params, query }) =>
        answered(
          fromPort("read the history", async () =>
            historyBody(
              await past.history(params.name, {
                sinceMs: query.since === undefined ? null : timeFrom(query.since, "since"),
                untilMs: query.until === undefined ? null : timeFrom(query.until, "until"),
                intervals:
                  query.intervals === undefined
                    ? intervalsDefault
                    : wholeNumber(query.intervals, "intervals"),
              }),
            ),
          ),
        ),
      )
      .handle("changes", ({ params, query }) =>
        answered(
          fromPort("compare points", async () =>
            changesBody(await past.changes(params.name, query.from, query.to)),
          ),
        ),
      )
      .handleRaw("blocks", ({ params, query }) =>
        answered(
          fromPort("read blocks", async () => {
            const offset = wholeNumber(query.offset, "offset");
            const length = wholeNumber(query.length, "length");
            const { bytes, point, sizeBytes } = await past.readPoint(
              params.name,
              params.point,
              offset,
              length,
            );
            return HttpServerResponse.uint8Array(bytes, {
              contentType: "application/octet-stream",
              headers: { "varve-lsn": String(point.lsn), "varve-size": String(sizeBytes) },
            });
          }),
        ),
      ),
  );
};

/** What starts background work, and the work itself. */
export const jobRoutes = (subject: ApiSubject) => {
  const { past } = subject;
  const started = (change: StartedChange) => startedBody(change, subject.urisOf(change.volume.name));
  return HttpApiBuilder.group(varveApi, "jobs", (handlers) =>
    handlers
      .handleRaw("clone", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const wanted = yield* readBody(request, bodies.CreateClone);
            const change = yield* fromPort("create from a point", async () =>
              past.createFrom({
                name: wanted.name,
                parent: params.name,
                point: wanted.point,
                sizeBytes: wanted.size === undefined ? null : sizeOf(wanted.size),
                durability: wanted.durability ?? null,
                ...(wanted.replicas === undefined ? {} : { replicas: wanted.replicas }),
                policy: policyFrom(wanted),
              }),
            );
            return HttpServerResponse.jsonUnsafe(started(change), { status: 201 });
          }),
        ),
      )
      .handleRaw("rollback", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { point, force } = yield* readBody(request, bodies.Rollback);
            const change = yield* fromPort("roll back", async () =>
              past.rollback(params.name, point, force ?? false),
            );
            return HttpServerResponse.jsonUnsafe(started(change));
          }),
        ),
      )
      .handle("fill", ({ params }) =>
        answered(fromPort("fill a volume", async () => jobBody(await past.fill(params.name)))),
      )
      .handleRaw("tier", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { coldAfter } = yield* readBody(request, bodies.Tier);
            const job = yield* fromPort("tier a volume", async () =>
              past.tier(params.name, coldAfter === undefined ? null : spanOf(coldAfter, "coldAfter", 0)),
            );
            return HttpServerResponse.jsonUnsafe(jobBody(job), { status: 202 });
          }),
        ),
      )
      .handle("jobs", () => Effect.sync(() => past.jobs().map(jobBody)))
      .handle("job", ({ params }) =>
        answered(fromPort("show a job", async () => jobBody(past.job(params.id)))),
      ),
  );
};

const sizeOf = (size: string | number): number =>
  typeof size === "number" ? size : byteSizeFrom(size, "size");

function wholeNumber(text: string, what: string): number {
  if (/^\d{1,16}$/.test(text)) return Number(text);
  throw new VarveError(
    "NumberSyntaxError",
    "Invalid",
    `${what}: ${JSON.stringify(text)} is not a whole number`,
    {
      hint: "Offsets and lengths are bytes, without a unit.",
      fields: { text },
    },
  );
}
