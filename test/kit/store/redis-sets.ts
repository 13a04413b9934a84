import { setTimeout as delay } from 'node:timers/promises'
import { slotOf } from '../../../src/store/redis/connection/cluster.ts'
import { freePort } from '../ports.ts'
import { notePause } from '../steady.ts'
import { startRedis, type TestRedis } from './redis.ts'

/** What the servers of a set are started with. */
export type RedisSetOptions = {
  /** Of Redis; the sentinels have their own. */
  readonly password?: string
  readonly sentinelPassword?: string
  /** PEM files: the servers then listen for TLS beside their plain ports. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string }
  readonly args?: readonly string[]
  /** `valkey-server`, say. */
  readonly program?: string
  /** Until a primary that does not answer counts as gone. */
  readonly downAfterMs?: number
}

type HostPort = { readonly host: string; readonly port: number }

/** A primary, its replicas, and the sentinels that watch them. */
export type SentinelSet = {
  readonly masterName: string
  readonly sentinels: readonly HostPort[]
  readonly servers: readonly TestRedis[]
  readonly sentinelServers: readonly TestRedis[]
  /** Whom most sentinels name. */
  primary(): Promise<TestRedis>
  /** The port that sentinels and replicas know it by. */
  portOfPrimary(): Promise<string>
  /** Resolves when the sentinels name a primary that is not `old` and every server that runs follows it. */
  movedFrom(old: TestRedis): Promise<TestRedis>
  /** Starts a server again that was killed, as a replica at once: sentinels would let it be a primary for 8 s. */
  rejoin(server: TestRedis): Promise<void>
  /** Everything in order again: every server runs, and follows the primary, and has what was written until now. */
  settled(): Promise<void>
  stop(): Promise<void>
}

const HOST = '127.0.0.1'
/** A replica is there at once, and not 5 s after its sync began. */
const AT_ONCE = ['--repl-diskless-sync-delay', '0', '--repl-timeout', '5']

function serverArgs({ password, tls, args = [] }: RedisSetOptions, tlsPort: number): string[] {
  return [
    ...AT_ONCE,
    ...(password ? ['--masterauth', password] : []),
    ...(tls
      ? [
          ...['--tls-port', String(tlsPort), '--tls-cert-file', tls.certFile, '--tls-key-file', tls.keyFile],
          ...['--tls-ca-cert-file', tls.certFile, '--tls-auth-clients', 'no', '--tls-replication', 'yes'],
        ]
      : []),
    ...args,
  ]
}

/** Starts one primary, one replica and three sentinels (2.4 s). With `tls` they name the TLS ports. */
export async function startSentinelSet(options: RedisSetOptions = {}): Promise<SentinelSet> {
  const { password, sentinelPassword, tls, program, downAfterMs = 1000 } = options
  const passwords = password ? { password } : {}
  const programs = program ? { program } : {}
  const tlsPorts = [await freePort(), await freePort()]
  const servers: TestRedis[] = []
  for (const tlsPort of tlsPorts) {
    const [first] = servers
    const follow = first ? ['--replicaof', HOST, String(tls ? tlsPorts[0] : first.port)] : []
    servers.push(
      await startRedis({ ...passwords, ...programs, args: [...serverArgs(options, tlsPort), ...follow] }),
    )
  }
  const portOf = (server: TestRedis) => (tls ? tlsPorts[servers.indexOf(server)]! : server.port)
  const masterName = 'mymaster'
  const lines = [
    `sentinel monitor ${masterName} ${HOST} ${portOf(servers[0]!)} 2`,
    `sentinel down-after-milliseconds ${masterName} ${downAfterMs}`,
    `sentinel failover-timeout ${masterName} 1000`,
    ...(password ? [`sentinel auth-pass ${masterName} ${password}`] : []),
    ...(sentinelPassword
      ? [`requirepass ${sentinelPassword}`, `sentinel sentinel-pass ${sentinelPassword}`]
      : []),
    ...(tls
      ? [
          ...[
            `tls-cert-file ${tls.certFile}`,
            `tls-key-file ${tls.keyFile}`,
            `tls-ca-cert-file ${tls.certFile}`,
          ],
          ...['tls-auth-clients no', 'tls-replication yes'],
        ]
      : []),
  ]
  const sentinelTlsPorts = [await freePort(), await freePort(), await freePort()]
  const sentinelServers = await Promise.all(
    sentinelTlsPorts.map((tlsPort) =>
      startRedis({
        ...programs,
        ...(sentinelPassword ? { password: sentinelPassword } : {}),
        sentinel: [...lines, ...(tls ? [`tls-port ${tlsPort}`] : [])],
      }),
    ),
  )

  async function named(): Promise<TestRedis | undefined> {
    const answers = await Promise.all(
      sentinelServers.map((server) =>
        server.cli('SENTINEL', 'get-master-addr-by-name', masterName).catch((): string[] => []),
      ),
    )
    const ports = answers.map(([, port]) => Number(port))
    const agreed = ports.find((port) => ports.filter((other) => other === port).length >= 2)
    return servers.find((server) => portOf(server) === agreed)
  }

  async function isSettled(): Promise<boolean> {
    const primary = await named()
    const infos = await Promise.all(
      servers.map((server) => server.cli('INFO', 'replication').catch((): string[] => [])),
    )
    const text = infos.map((info) => info.join('\n'))
    const isPrimary = text.filter((info) => /role:master/.test(info)).length === 1
    const follows = text.filter((info) => /master_link_status:up/.test(info)).length === servers.length - 1
    const known = await Promise.all(
      sentinelServers.map(async (server) => {
        const said = await server.cli('SENTINEL', 'master', masterName).catch((): string[] => [])
        const field = (name: string) => said[said.indexOf(name) + 1]
        return field('num-other-sentinels') === '2' && field('num-slaves') === String(servers.length - 1)
      }),
    )
    return primary !== undefined && isPrimary && follows && known.every(Boolean)
  }

  const set: SentinelSet = {
    ...{ masterName, servers, sentinelServers },
    sentinels: sentinelServers.map(({ port }, at) => ({
      host: HOST,
      port: tls ? sentinelTlsPorts[at]! : port,
    })),
    async primary() {
      await until(async () => (await named()) !== undefined)
      return (await named())!
    },
    async movedFrom(old) {
      await until(async () => ![old, undefined].includes(await named()))
      return (await named())!
    },
    portOfPrimary: async () => String(portOf(await set.primary())),
    async rejoin(server) {
      await server.restart()
      await server.cli('REPLICAOF', HOST, await set.portOfPrimary())
    },
    async settled() {
      // A test that failed may have left one frozen or killed.
      for (const server of servers) {
        server.resume()
        if (!server.isRunning()) await set.rejoin(server)
      }
      await until(isSettled)
      await replicated(servers)
    },
    async stop() {
      await Promise.all([...sentinelServers, ...servers].map((server) => server.stop()))
    },
  }
  await set.settled()
  return set
}

/** Three primaries with a replica each. */
export type ClusterSet = {
  readonly nodes: readonly TestRedis[]
  readonly seeds: readonly HostPort[]
  /** The primary that has a key, or a slot, now. */
  ownerOf(key: string): Promise<TestRedis>
  ownerOfSlot(slot: number): Promise<TestRedis>
  primaries(): Promise<readonly TestRedis[]>
  /** Moves slots with their keys from their owner to another primary, one after the other, as redis-cli --cluster reshard does. */
  moveSlots(slots: readonly number[], to: TestRedis): Promise<void>
  /** The state of a slot that is on its way, with its keys still at the old owner. Returns what ends it. */
  beginMove(slot: number, to: TestRedis): Promise<() => Promise<void>>
  settled(): Promise<void>
  stop(): Promise<void>
}

const SLOTS = 16_384

/** Starts six nodes and makes a Redis Cluster of them (about 3 s). With `tls` clients are told the TLS ports. */
export async function startClusterSet(options: RedisSetOptions = {}): Promise<ClusterSet> {
  const { password, tls, program, downAfterMs = 1000 } = options
  const tlsPorts: number[] = []
  const nodes: TestRedis[] = []
  for (let n = 0; n < 6; n += 1) {
    tlsPorts.push(await freePort())
    const args = [
      ...serverArgs(options, tlsPorts[n]!),
      ...['--cluster-enabled', 'yes', '--cluster-config-file', 'nodes.conf'],
      ...['--cluster-node-timeout', String(downAfterMs), '--cluster-port', String(await freePort())],
      ...(tls ? ['--tls-cluster', 'yes'] : []),
    ]
    nodes.push(await startRedis({ ...(password ? { password } : {}), ...(program ? { program } : {}), args }))
  }
  const idOf = async (node: TestRedis) => (await node.cli('CLUSTER', 'MYID'))[0]!

  async function rows(): Promise<{ id: string; port: number; isPrimary: boolean; slots: string[] }[]> {
    for (const node of nodes) {
      // One that is frozen takes the connection and never answers.
      const lines = await Promise.race([
        node.cli('CLUSTER', 'NODES').catch((): string[] => []),
        delay(1_000, [] as string[], { ref: false }),
      ])
      const said = lines.map((line) => line.split(' '))
      if (said.length === 0) continue
      return said.map(([id, address, flags, , , , , , ...slots]) => ({
        ...{ id: id!, port: Number(/:(\d+)@/.exec(address!)?.[1]) },
        ...{ isPrimary: flags!.includes('master') && !flags!.includes('fail'), slots },
      }))
    }
    throw new Error('no node of the cluster answers')
  }

  /** What CLUSTER NODES calls a port is that of TLS where the cluster is set up so. */
  const nodeAt = (port: number) => nodes.find((node, at) => node.port === port || tlsPorts[at] === port)!

  async function ownerOfSlot(slot: number): Promise<TestRedis> {
    const owner = (await rows()).find(({ isPrimary, slots }) => {
      const ranges = slots
        .filter((range) => !range.startsWith('['))
        .map((range) => range.split('-').map(Number))
      return isPrimary && ranges.some(([from, to = from]) => from! <= slot && slot <= to!)
    })
    if (!owner) throw new Error(`slot ${slot} has no owner`)
    return nodeAt(owner.port)
  }

  async function form(): Promise<void> {
    await Promise.all(
      nodes.slice(0, 3).map(async (node, at) => {
        const [from, to] = [at, at + 1].map((third) => Math.floor((third * SLOTS) / 3))
        await node.cli('CLUSTER', 'ADDSLOTSRANGE', String(from), String(to! - 1))
        await node.cli('CLUSTER', 'SET-CONFIG-EPOCH', String(at + 1))
      }),
    )
    for (const [at, node] of nodes.entries()) {
      const [bus] = await node.cli('CONFIG', 'GET', 'cluster-port').then((lines) => lines.slice(1))
      for (const other of nodes.filter((each) => each !== node)) {
        await other.cli('CLUSTER', 'MEET', HOST, String(tls ? tlsPorts[at] : node.port), bus!)
      }
    }
    const ids = await Promise.all(nodes.map(idOf))
    await until(async () => {
      const known = await Promise.all(nodes.map(async (node) => (await node.cli('CLUSTER', 'NODES')).join()))
      return known.every((text) => ids.every((id) => text.includes(id)) && !text.includes('handshake'))
    })
    await Promise.all(nodes.slice(3).map((node, at) => node.cli('CLUSTER', 'REPLICATE', ids[at]!)))
  }

  async function isSettled(): Promise<boolean> {
    const states = await Promise.all(
      nodes.map(async (node) => {
        const info = (await node.cli('CLUSTER', 'INFO').catch((): string[] => [])).join('\n')
        const replication = (await node.cli('INFO', 'replication').catch((): string[] => [])).join('\n')
        const slots = (await node.cli('CLUSTER', 'NODES').catch((): string[] => [])).filter((line) =>
          /fail/.test(line),
        )
        return {
          isOk: /cluster_state:ok/.test(info) && slots.length === 0,
          isPrimary: /role:master/.test(replication),
          follows: /master_link_status:up/.test(replication),
        }
      }),
    )
    return (
      states.every(({ isOk }) => isOk) &&
      states.filter(({ isPrimary }) => isPrimary).length === 3 &&
      states.filter(({ follows }) => follows).length === 3
    )
  }

  async function beginMove(slot: number, to: TestRedis): Promise<() => Promise<void>> {
    const from = await ownerOfSlot(slot)
    const [fromId, toId] = [await idOf(from), await idOf(to)]
    await to.cli('CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', fromId)
    await from.cli('CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', toId)
    return async () => {
      const auth = password ? ['AUTH', password] : []
      for (;;) {
        const keys = await from.cli('CLUSTER', 'GETKEYSINSLOT', String(slot), '10')
        if (keys.length === 0) break
        const port = String(tls ? tlsPorts[nodes.indexOf(to)] : to.port)
        const startedMs = performance.now()
        await from.cli('MIGRATE', HOST, port, '', '0', '5000', ...auth, 'KEYS', ...keys)
        // The node serves nothing else until the other one has the keys.
        notePause(performance.now() - startedMs)
      }
      for (const node of [to, from]) await node.cli('CLUSTER', 'SETSLOT', String(slot), 'NODE', toId)
    }
  }

  const set: ClusterSet = {
    ...{ nodes, beginMove, ownerOfSlot },
    seeds: nodes.map(({ port }, at) => ({ host: HOST, port: tls ? tlsPorts[at]! : port })),
    ownerOf: (key) => ownerOfSlot(slotOf(key)),
    async primaries() {
      return (await rows()).filter(({ isPrimary }) => isPrimary).map(({ port }) => nodeAt(port))
    },
    async moveSlots(slots, to) {
      for (const slot of slots) await (await beginMove(slot, to))()
    },
    async settled() {
      // A test that failed may have left one frozen or killed.
      for (const node of nodes) {
        node.resume()
        if (!node.isRunning()) await node.restart()
      }
      await until(isSettled)
      await replicated(nodes)
    },
    async stop() {
      await Promise.all(nodes.map((node) => node.stop()))
    },
  }
  await form()
  await set.settled()
  return set
}

/** Resolves when the replicas have what their primaries had when this was called. */
async function replicated(servers: readonly TestRedis[]): Promise<void> {
  const standing = (server: TestRedis) => replicationOf(server).catch(() => undefined)
  const written = new Map<string, number>()
  for (const one of await Promise.all(servers.map(standing)))
    if (one?.role === 'master') written.set(one.id, one.offset)
  await until(async () => {
    const now = await Promise.all(servers.map(standing))
    return now.every((one) => one !== undefined && one.offset >= (written.get(one.id) ?? 0))
  })
}

async function replicationOf(server: TestRedis) {
  const text = (await server.cli('INFO', 'replication')).join('\n')
  const field = (name: string) => new RegExp(`^${name}:([^\\s]+)`, 'm').exec(text)?.[1] ?? ''
  const role = field('role')
  const offset = Number(field(role === 'master' ? 'master_repl_offset' : 'slave_repl_offset'))
  return { role, id: field('master_replid'), offset }
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error('the set of servers is not in order within 30 s')
    await delay(25)
  }
}
