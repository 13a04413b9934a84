import { writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Secret } from '../../../src/config/secrets/secret.ts'
import type { RedisAddress } from '../../../src/store/redis/connection/servers.ts'
import { selfSigned } from '../self-signed.ts'
import { type ClusterSet, type SentinelSet, startClusterSet, startSentinelSet } from './redis-sets.ts'

/** How the sets below are reached as their default user. */
export type Reached<Set> = { readonly set: Set; readonly address: RedisAddress }

const NAME = 'localhost'
export const SET_PASSWORD = 'of-the-default-user'
export const SENTINEL_PASSWORD = 'of-the-sentinels'

/** One for all files of this process, with TLS and passwords: it takes seconds to form. It ends with the process. */
export const sharedSentinels = once(async (): Promise<Reached<SentinelSet>> => {
  const tls = await certificate()
  const set = await startSentinelSet({
    ...{ password: SET_PASSWORD, sentinelPassword: SENTINEL_PASSWORD, tls: tls.files },
  })
  unref([...set.servers, ...set.sentinelServers])
  return {
    set,
    address: {
      ...{ sentinels: set.sentinels, masterName: set.masterName, tls: tls.client },
      password: new Secret(SET_PASSWORD),
      sentinelPassword: new Secret(SENTINEL_PASSWORD),
    },
  }
})

/** The same of a Redis Cluster. */
export const sharedCluster = once(async (): Promise<Reached<ClusterSet>> => {
  const tls = await certificate()
  const set = await startClusterSet({ password: SET_PASSWORD, tls: tls.files })
  unref(set.nodes)
  return {
    set,
    // A few name the rest.
    address: { cluster: set.seeds.slice(0, 2), tls: tls.client, password: new Secret(SET_PASSWORD) },
  }
})

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return () => (made ??= make())
}

function unref(servers: readonly { unref(): void }[]): void {
  for (const server of servers) server.unref()
}

async function certificate() {
  const { cert, key } = selfSigned([NAME])
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-redis-tls-'))
  const files = { certFile: join(folder, 'cert.pem'), keyFile: join(folder, 'key.pem') }
  writeFileSync(files.certFile, cert)
  writeFileSync(files.keyFile, key)
  return { files, client: { ca: cert, servername: NAME } }
}
