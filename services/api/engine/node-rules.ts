/*
 * What is refused of an order for a storage node: a node or a pool that is not known, tags that can't be. Used by whatever of the api
 * changes nodes (cluster-volumes.ts, replica-placing.ts).
 */
import type { PoolOrder } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { tagsMistakes } from "#shared/domain/volume-orders.ts";
import type { NodeView } from "#shared/ports/cluster-administration.ts";

/** `found`, or an UnknownNodeError that names those there are. */
export function requireNode<Node>(
  found: Node | undefined,
  name: string,
  nodes: readonly { readonly name: string }[],
): Node {
  if (found !== undefined) return found;
  const names = nodes.map((node) => node.name).join(", ");
  throw new VarveError("UnknownNodeError", "Invalid", `there is no storage node named ${name}`, {
    hint: names === "" ? "There are no storage nodes yet." : `Nodes: ${names}. Nothing was changed.`,
    fields: { name },
  });
}

/** Throws UnknownPoolError or PoolOrderError: then none of the orders holds. */
export function requirePools({ name: node, pools }: NodeView, orders: readonly PoolOrder[]): void {
  for (const { name, tags } of orders) {
    if (!pools.some((pool) => pool.name === name)) {
      throw new VarveError("UnknownPoolError", "Invalid", `storage node ${node} has no pool named ${name}`, {
        hint: `Pools: ${pools.map((pool) => pool.name).join(", ")}. Nothing was changed.`,
        fields: { node, name },
      });
    }
    const mistakes = tagsMistakes(tags ?? [], limits.poolTagsMax);
    if (mistakes.length === 0) continue;
    throw new VarveError("PoolOrderError", "Invalid", `pool ${name} of ${node}: ${mistakes.join("; ")}`, {
      hint: "Tags are made of a-z, 0-9 and '-'. Nothing was changed.",
      fields: { node, name },
    });
  }
}
