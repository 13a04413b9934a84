import type { Config } from '../../config/config.ts'
import type { Gauges, Reading } from './readings.ts'
import { refreshesIn, type Window } from './traffic.ts'
import type { Trouble, Troubles } from './trouble.ts'

/** What an operator is shown of one resource. */
export type ResourceStatus = {
  readonly name: string
  readonly grant: string
  readonly resource?: string
  readonly scopes: readonly string[]
  readonly audience?: string
  /** How many routes send its token. */
  readonly routes: number
  /** Since the start, by outcome. */
  readonly outcomes: Readonly<Record<string, number>>
  /** In the window. */
  readonly recent: { readonly renewed: number; readonly failed: number }
  /** Of the last access token, when it came. */
  readonly lifetimeSeconds?: number
  readonly lastError?: Trouble
}

export type ResourceFacts = {
  readonly gauges: Gauges
  /** Since the start, and in the window. */
  readonly totals: Reading
  readonly window: Window
  readonly troubles: Troubles
}

/** The state of every resource, in the order of the configuration. */
export function resourceStates({ resources, routes }: Config, facts: ResourceFacts): ResourceStatus[] {
  const { gauges, totals, window, troubles } = facts
  const routesOf = new Map<string, number>()
  for (const { resource = '' } of routes) routesOf.set(resource, (routesOf.get(resource) ?? 0) + 1)
  return Object.values(resources).map(({ name, grant, resource, scopes, audience }) => {
    const lifetimeSeconds = gauges.tokenLifetimes.get(name)
    const lastError = troubles.lastOfResource(name)
    return {
      ...{ name, grant, scopes },
      ...(resource === undefined ? {} : { resource }),
      ...(audience === undefined ? {} : { audience }),
      routes: routesOf.get(name) ?? 0,
      outcomes: totals.refreshes.get(name) ?? {},
      recent: refreshesIn([window.reading.refreshes.get(name) ?? {}]),
      ...(lifetimeSeconds === undefined ? {} : { lifetimeSeconds }),
      ...(lastError && { lastError }),
    }
  })
}
