// What commands say when the server is not there, or goes before it has answered: these are two things, because in the second case it may
// have done what it was asked for.
import { createServer, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { ApiClient } from "../../../services/cli/api-client.ts";

let close: () => void = () => undefined;

afterEach(() => close());

async function serverThat(does: (socket: Socket) => void): Promise<ApiClient> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => does(socket));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  close = () => server.close();
  const address = server.address();
  return new ApiClient(`127.0.0.1:${typeof address === "object" ? address?.port : ""}`);
}

test.each([
  ["before its answer", (socket: Socket) => socket.destroy()],
  ["within its answer", (socket: Socket) => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")],
])("a server that ends %s may have done what it was asked for", async (_when, does) => {
  const client = await serverThat(does);
  await expect(client.call("POST", "/v1/volumes", {})).rejects.toMatchObject({
    _tag: "AnswerLostError",
    kind: "Retry",
    hint: expect.stringContaining("before you try again"),
  });
});
