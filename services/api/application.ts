/*
 * The HTTP application as a listener for Node's http server: Effect's router around routes.ts, guard.ts around that.
 * Loaded by layer.ts at the first request; lives in the scope of the process, so a request under way at shutdown is ended
 * with it.
 */
import type { RequestListener } from "node:http";
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer";
import * as Effect from "effect/Effect";
import * as HttpRouter from "effect/http/HttpRouter";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import type { ListenAddress } from "#shared/shell/listen-address.ts";
import type { ApiSubject } from "./api-subject.ts";
import { guarded } from "./guard.ts";
import { apiRoutes } from "./routes.ts";

export const application = (
  subject: ApiSubject,
  address: ListenAddress,
): Effect.Effect<RequestListener, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope;
    const app = yield* HttpRouter.toHttpEffect(
      apiRoutes(subject).pipe(Layer.provide(NodeHttpServer.layerHttpServices)),
    );
    return yield* NodeHttpServer.makeHandler(guarded(app, address), { scope });
  });
