import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import {
  apply,
  createNamespace,
  type Ended,
  isReady,
  kubectl,
  list,
  type Manifest,
  run,
  until,
} from './kube.ts'
import type { PartsCounters } from './parts.ts'

/** Everything of the run is in this namespace, which enforces the restricted Pod Security Standard. */
export const NAMESPACE = 'shop'
/** The release; the chart's objects have its name. */
export const RELEASE = 'cloakroom'
/** What browsers see. */
export const APP = 'https://app.cloakroom.test'
/** The provider, for browsers and pods. */
export const ISSUER = 'http://login.cloakroom.test:8000'

const AUDIENCE = 'https://orders.cloakroom.test'
const CHART = fileURLToPath(new URL('../../helm/cloakroom', import.meta.url))
const IMAGES = 'localhost/cloakroom-cluster'
const REDIS = ['redis-0', 'redis-1', 'redis-2']
const SENTINELS = ['sentinel-0', 'sentinel-1', 'sentinel-2']
const MASTER = 'mymaster'
const DOWN_AFTER_MS = 3_000
const UPGRADE_SECONDS = 150

/** What the Secret `cloakroom` holds, by key; the provider takes the client secret that is there when it starts. */
const secrets: Record<string, string> = {
  'client-secret': newSecret(),
  'session-key': newSecret(),
  'redis-password': newSecret(),
}

function newSecret(): string {
  return randomBytes(32).toString('base64url')
}

/** Cloakroom as the chart has installed it, and what stands around it. */
export type Installation = {
  /** The provider as the run reaches it. */
  readonly providerUrl: string
  /** Changes the values and upgrades, for so long at most; keeps the change if that succeeds, and tells how it ended. */
  tryUpgrade(change: (values: Manifest) => void, seconds?: number): Promise<Ended>
  /** The same; throws when it fails. */
  upgrade(change: (values: Manifest) => void): Promise<void>
  /** Cloakroom's pods that are not ending. */
  pods(): Promise<Manifest[]>
  /** Resolves when there are so many pods, all of the newest template, and ready. */
  settled(replicas?: number): Promise<void>
  /** Puts a new value into the Secret under this key; gives it. */
  changeSecret(key: string): Promise<string>
  counters(): Promise<PartsCounters>
  /** The client secrets that the provider takes from now on. */
  acceptSecrets(...secrets: string[]): Promise<void>
  clientSecret(): string
  readonly redis: RedisSet
}

/** A Redis with sentinels in pods. */
export type RedisSet = {
  /** Name of the pod that two sentinels call the primary. */
  primary(): Promise<string>
  /** The pod is there no more: takes its place with a new replica. */
  replace(name: string): Promise<void>
  settled(): Promise<void>
}

/** Makes the namespace, Redis, provider and API, and installs the chart with three replicas. */
export async function install(): Promise<Installation> {
  await createNamespace(NAMESPACE)
  await apply(NAMESPACE, secretManifest())
  const [parts, redis] = await Promise.all([startParts(), startRedis()])
  let values = firstValues({ parts, sentinels: redis.sentinels })

  function upgrade(wished: Manifest, seconds = UPGRADE_SECONDS): Promise<Ended> {
    const args = ['upgrade', '--install', RELEASE, CHART, '-n', NAMESPACE, '-f', '-']
    return run('helm', [...args, '--wait', '--timeout', `${seconds}s`], JSON.stringify(wished))
  }

  const installation: Installation = {
    ...{ providerUrl: `http://${parts}:8000`, redis },
    async tryUpgrade(change, seconds) {
      const wished = structuredClone(values)
      change(wished)
      const ended = await upgrade(wished, seconds)
      if (ended.code === 0) values = wished
      return ended
    },
    async upgrade(change) {
      const { code, stderr } = await installation.tryUpgrade(change)
      if (code !== 0) throw new Error(`helm upgrade: ${stderr}`)
      await installation.settled(values.replicas)
    },
    async pods() {
      const all = await list(NAMESPACE, 'pods', `app.kubernetes.io/name=cloakroom`)
      return all.filter(({ metadata }) => !metadata.deletionTimestamp)
    },
    async settled(replicas = values.replicas) {
      await kubectl(NAMESPACE, 'rollout', 'status', `deploy/${RELEASE}`, `--timeout=${UPGRADE_SECONDS}s`)
      await until(`${replicas} pods are ready`, async () => {
        const pods = await list(NAMESPACE, 'pods', `app.kubernetes.io/name=cloakroom`)
        return pods.length === replicas && pods.every(isReady)
      })
    },
    async changeSecret(key) {
      secrets[key] = newSecret()
      await apply(NAMESPACE, secretManifest())
      return secrets[key]
    },
    counters: async () => (await (await fetch(`http://${parts}:8003/`)).json()) as PartsCounters,
    async acceptSecrets(...accepted) {
      await fetch(`http://${parts}:8003/secrets`, { method: 'POST', body: JSON.stringify(accepted) })
    },
    clientSecret: () => secrets['client-secret']!,
  }
  const { code, stderr } = await upgrade(values)
  if (code !== 0) throw new Error(`helm install: ${stderr}`)
  await installation.settled()
  return installation
}

/** The values of the run; what differs from a production's is what the cluster has not: DNS and TLS. */
function firstValues({ parts, sentinels }: { parts: string; sentinels: readonly string[] }): Manifest {
  return {
    image: { repository: `${IMAGES}/cloakroom`, tag: 'one', pullPolicy: 'Never' },
    replicas: 3,
    secrets: { existingSecret: 'cloakroom' },
    hostAliases: [{ ip: parts, hostnames: [new URL(ISSUER).hostname] }],
    config: {
      publicUrl: APP,
      trustProxy: ['198.18.0.1/32'],
      provider: {
        issuer: ISSUER,
        insecureHosts: [new URL(ISSUER).host],
        clientId: 'shop',
        resourceDialect: 'resource-indicator',
        scopes: ['openid', 'profile', 'offline_access'],
      },
      session: {
        store: {
          sentinels: sentinels.map((address) => `${address}:26379`),
          masterName: MASTER,
          password: { file: '/run/secrets/redis-password' },
        },
      },
      resources: { orders: { resource: AUDIENCE, audience: AUDIENCE } },
      routes: [
        { path: '/api/orders', id: 'orders', upstream: `http://${parts}:8001`, resource: 'orders' },
        { path: '/', id: 'spa', upstream: `http://${parts}:8002`, auth: 'anonymous' },
      ],
    },
  }
}

function secretManifest(): Manifest {
  return { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'cloakroom' }, stringData: { ...secrets } }
}

/** The pod of test/cluster/parts.ts; its address. */
async function startParts(): Promise<string> {
  const fromSecret = { secretKeyRef: { name: 'cloakroom', key: 'client-secret' } }
  const env = [
    { name: 'ISSUER', value: ISSUER },
    { name: 'AUDIENCE', value: AUDIENCE },
    { name: 'CLIENT_SECRET', valueFrom: fromSecret },
  ]
  const command = ['node', '/parts/test/cluster/parts.ts']
  const readinessProbe = { httpGet: { path: '/', port: 8003 }, periodSeconds: 1 }
  return startPod('parts', { command, env, readinessProbe })
}

/** Makes a pod of the image `parts` and resolves with its address when it is ready. */
async function startPod(name: string, container: Manifest): Promise<string> {
  const security = {
    ...{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
  }
  const spec = {
    // One that was killed stays dead: it would come back as an empty primary before any sentinel has missed it.
    ...{ restartPolicy: 'Never', automountServiceAccountToken: false, enableServiceLinks: false },
    securityContext: {
      ...{ runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532 },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    containers: [
      {
        ...{ name: 'main', image: `${IMAGES}/parts`, imagePullPolicy: 'Never', securityContext: security },
        // Without it a pod gets what others leave: Redis would stand still while a new Cloakroom starts.
        resources: { requests: { cpu: '100m' } },
        ...container,
        volumeMounts: [{ name: 'data', mountPath: '/data' }],
      },
    ],
    volumes: [{ name: 'data', emptyDir: {} }],
  }
  await apply(NAMESPACE, { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels: { part: name } }, spec })
  const pod = await until(`${name} is ready`, async () =>
    (await list(NAMESPACE, 'pods', `part=${name}`)).find(isReady),
  )
  return pod.status.podIP
}

async function startRedis(): Promise<RedisSet & { sentinels: readonly string[] }> {
  const addresses = new Map<string, string>()
  const password = { secretKeyRef: { name: 'cloakroom', key: 'redis-password' } }
  const env = [{ name: 'REDISCLI_AUTH', valueFrom: password }]

  async function startServer(name: string, primary?: string): Promise<void> {
    const args = [
      ...['--requirepass', '$(REDISCLI_AUTH)', '--masterauth', '$(REDISCLI_AUTH)'],
      ...['--dir', '/data', '--save', '', '--appendonly', 'no', '--repl-diskless-sync-delay', '0'],
      ...(primary ? ['--replicaof', primary, '6379'] : []),
    ]
    const readinessProbe = { tcpSocket: { port: 6379 }, periodSeconds: 1 }
    addresses.set(name, await startPod(name, { command: ['redis-server', ...args], env, readinessProbe }))
  }

  async function startSentinel(name: string, primary: string): Promise<string> {
    const lines = [
      ...['port 26379', 'dir /data', `sentinel monitor ${MASTER} ${primary} 6379 2`],
      `sentinel auth-pass ${MASTER} $REDISCLI_AUTH`,
      `sentinel down-after-milliseconds ${MASTER} ${DOWN_AFTER_MS}`,
      `sentinel failover-timeout ${MASTER} 10000`,
    ]
    // A sentinel writes into its file.
    const script = `printf '%s\\n' ${lines.map((line) => `"${line}"`).join(' ')} > /data/sentinel.conf
      exec redis-server /data/sentinel.conf --sentinel`
    const readinessProbe = { tcpSocket: { port: 26379 }, periodSeconds: 1 }
    return startPod(name, { command: ['sh', '-c', script], env, readinessProbe })
  }

  const cli = async (pod: string, ...command: string[]) =>
    (await kubectl(NAMESPACE, 'exec', pod, '--', 'redis-cli', ...command)).trim()
  const sentinelCli = (pod: string, ...command: string[]) =>
    // Sentinels have no password here.
    cli(pod, '-p', '26379', '--no-auth-warning', ...command)

  await startServer(REDIS[0]!)
  const first = addresses.get(REDIS[0]!)!
  await Promise.all(REDIS.slice(1).map((name) => startServer(name, first)))
  const sentinels = await Promise.all(SENTINELS.map((name) => startSentinel(name, first)))

  async function primary(): Promise<string> {
    return until('two sentinels agree on a primary', async () => {
      const asked = SENTINELS.map((name) => sentinelCli(name, 'sentinel', 'get-master-addr-by-name', MASTER))
      const said = (await Promise.all(asked)).map((answer) => answer.split('\n')[0]!)
      const agreed = said.find((address) => said.filter((other) => other === address).length >= 2)
      return REDIS.find((name) => addresses.get(name) === agreed)
    })
  }

  const set = {
    ...{ sentinels, primary },
    async replace(name: string) {
      await kubectl(NAMESPACE, 'delete', 'pod', name, '--force', '--grace-period=0')
      await startServer(name, addresses.get(await primary()))
    },
    async settled() {
      await until('both replicas follow the primary', async () => {
        const info = await cli(await primary(), 'info', 'replication')
        return (info.match(/state=online/g) ?? []).length === REDIS.length - 1
      })
    },
  }
  await set.settled()
  return set
}
