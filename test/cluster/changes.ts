import { get } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { APP, type Installation, NAMESPACE } from './installation.ts'
import { isReady, killContainer, kubectl, type Manifest, until } from './kube.ts'

/** Something that is done to a cluster under load. */
export type Change = {
  readonly name: string
  /** Refusals that must happen, as the tally has them. */
  readonly allowed?: readonly string[]
  /** Sessions may be lost with what Redis had not replicated. */
  readonly mayLose?: true
  /** Does it, waits until all is as it will stay, and says what was seen beside the load. */
  readonly happen: (installation: Installation) => Promise<string>
}

const QUIET_MS = 10_000
/** How long an upgrade is given that cannot succeed. */
const FAILING_SECONDS = 25

/** All of them, in the order in which they are played: some prepare the next. */
export const CHANGES: readonly Change[] = [
  {
    name: 'nothing, for comparison',
    async happen() {
      await delay(QUIET_MS)
      return '-'
    },
  },
  {
    name: 'scaled from 3 to 5',
    async happen(installation) {
      await installation.upgrade((values) => {
        values.replicas = 5
      })
      return '5 pods'
    },
  },
  {
    name: 'scaled from 5 to 3',
    async happen(installation) {
      await installation.upgrade((values) => {
        values.replicas = 3
      })
      return '3 pods'
    },
  },
  {
    name: 'a pod deleted by force',
    async happen(installation) {
      const [pod] = await installation.pods()
      await kubectl(NAMESPACE, 'delete', 'pod', pod.metadata.name, '--force', '--grace-period=0')
      await installation.settled()
      return 'another in its place'
    },
  },
  {
    name: "a pod's process killed (SIGKILL)",
    async happen(installation) {
      const [pod] = await installation.pods()
      await killContainer(pod)
      await until('it has restarted', async () =>
        (await installation.pods()).some(
          (one) => one.metadata.name === pod.metadata.name && restartsOf(one) > restartsOf(pod),
        ),
      )
      await installation.settled()
      return 'the same pod, one restart'
    },
  },
  {
    name: "the Redis primary's process killed (SIGKILL)",
    allowed: ['503 store_unavailable'],
    mayLose: true,
    async happen(installation) {
      const { redis } = installation
      const old = await redis.primary()
      const pods = JSON.parse(
        await kubectl(NAMESPACE, 'get', 'pods', '-l', `part=${old}`, '-o', 'json'),
      ).items
      const killedAt = performance.now()
      await killContainer(pods[0])
      const fresh = await until('another primary', async () => {
        const now = await redis.primary()
        return now !== old && now
      })
      const seconds = ((performance.now() - killedAt) / 1000).toFixed(1)
      await redis.replace(old)
      await redis.settled()
      return `${fresh} was the primary ${seconds} s later`
    },
  },
  {
    name: 'rolling update to another image',
    async happen(installation) {
      const before = await names(installation)
      await installation.upgrade((values) => {
        values.image.tag = 'two'
      })
      return replaced(before, await names(installation))
    },
  },
  {
    name: 'changed config, `reload: roll`',
    async happen(installation) {
      const before = await names(installation)
      await installation.upgrade(addRoute('/rolled'))
      await everyPodAnswers(installation, '/rolled')
      return `${replaced(before, await names(installation))}; all answer the new route`
    },
  },
  {
    name: 'bad config, refused by the hook',
    async happen(installation) {
      const before = await names(installation)
      const { code } = await installation.tryUpgrade(breakConfig)
      expect(code !== 0, 'helm upgrade fails')
      const log = await kubectl(NAMESPACE, 'logs', 'job/cloakroom-check')
      expect(/tests\[0\]/.test(log), `the job says why: ${log}`)
      expect(same(before, await names(installation)), 'the pods are the same')
      return 'helm upgrade failed, the pods are the same'
    },
  },
  {
    name: 'bad config past the hook, `reload: roll`, and one of the old pods restarts',
    async happen(installation) {
      const before = await names(installation)
      const failing = installation.tryUpgrade((values) => {
        breakConfig(values)
        values.configCheck = { enabled: false }
      }, FAILING_SECONDS)
      await until('the new pod fails', async () =>
        (await installation.pods()).some((pod) => !before.includes(pod.metadata.name) && restartsOf(pod) > 0),
      )
      const [old] = before
      await kubectl(NAMESPACE, 'delete', 'pod', old!, '--wait=false')
      await until('the old pod has a successor that is ready', async () => {
        const ready = (await installation.pods()).filter(isReady)
        return ready.length === 3 && ready.every(({ metadata }) => metadata.name !== old)
      })
      expect((await failing).code !== 0, 'helm upgrade fails')
      await installation.upgrade(() => {})
      return 'the new pod failed, three old ones served, one of them new with the old config'
    },
  },
  {
    name: 'rotated client secret',
    async happen(installation) {
      const old = installation.clientSecret()
      const fresh = await installation.changeSecret('client-secret')
      await installation.acceptSecrets(old, fresh)
      const before = await installation.counters()
      await until('all refreshes come with the new secret', async () => {
        const now = await installation.counters()
        await delay(3_000)
        const later = await installation.counters()
        return countOf(later, fresh) > countOf(before, fresh) && countOf(later, old) === countOf(now, old)
      })
      await installation.acceptSecrets(fresh)
      await delay(QUIET_MS)
      const { refusedClients } = await installation.counters()
      expect(refusedClients === before.refusedClients, 'the provider refuses no secret')
      return 'without a new pod; the old secret was refused from the moment that none used it'
    },
  },
  {
    name: 'rotated session key: added second, made first',
    async happen(installation) {
      await installation.changeSecret('session-key-2')
      const [first, second] = ['session-key', 'session-key-2'].map((key) => ({ file: `/run/secrets/${key}` }))
      await installation.upgrade((values) => {
        values.config.session.keys = [first, second]
      })
      await installation.upgrade((values) => {
        values.config.session.keys = [second, first]
      })
      return 'two rollouts'
    },
  },
  {
    name: 'change from `roll` to `hot`',
    async happen(installation) {
      await installation.upgrade((values) => {
        values.reload = 'hot'
      })
      return 'one rollout'
    },
  },
  {
    name: 'changed config, `reload: hot`',
    async happen(installation) {
      const before = await names(installation)
      await installation.upgrade(addRoute('/hot'))
      await everyPodAnswers(installation, '/hot')
      expect(same(before, await names(installation)), 'the pods are the same')
      return 'all answer the new route, the pods are the same'
    },
  },
  {
    name: 'bad config past the hook, `reload: hot`',
    async happen(installation) {
      const before = await names(installation)
      await installation.upgrade((values) => {
        breakConfig(values)
        values.configCheck = { enabled: false }
      })
      await everyPodSays(installation, /^cloakroom_config_last_reload_success 0$/m)
      expect(same(before, await names(installation)), 'the pods are the same')
      await installation.upgrade((values) => {
        delete values.config.tests
        delete values.configCheck
      })
      await everyPodSays(installation, /^cloakroom_config_last_reload_success 1$/m)
      return 'every pod refused it and kept the one before, then took a good one'
    },
  },
]

const addRoute = (path: string) => (values: Manifest) => {
  const spa = values.config.routes.at(-1)
  values.config.routes.unshift({ ...spa, path, id: path.slice(1), rewrite: '/new' })
}

/** A config that the schema of the values has nothing against, and `check` has: its own test fails. */
function breakConfig(values: Manifest): void {
  values.config.tests = [{ request: 'GET /api/orders', expect: { route: 'spa' } }]
}

async function names(installation: Installation): Promise<string[]> {
  return (await installation.pods()).map(({ metadata }) => metadata.name).sort()
}

const same = (one: readonly string[], other: readonly string[]) => one.join() === other.join()

const replaced = (before: readonly string[], after: readonly string[]) =>
  `${after.filter((name) => !before.includes(name)).length} of ${after.length} pods are new`

const restartsOf = ({ status }: Manifest): number => status.containerStatuses?.[0]?.restartCount ?? 0

const countOf = ({ bySecret }: { bySecret: Readonly<Record<string, number>> }, secret: string) =>
  bySecret[secret] ?? 0

/** Each pod, asked at its own address. */
async function everyPodAnswers(installation: Installation, path: string): Promise<void> {
  await everyPod(installation, `:8080${path}`, ({ status }) => status === 200)
}

async function everyPodSays(installation: Installation, line: RegExp): Promise<void> {
  await everyPod(installation, ':9090/metrics', ({ text }) => line.test(text))
}

const LOOK_SECONDS = 120

async function everyPod(
  installation: Installation,
  portAndPath: string,
  holds: (answer: { status: number; text: string }) => boolean,
): Promise<void> {
  await until(
    `every pod answers ${portAndPath} as it should`,
    async () => {
      const pods = await installation.pods()
      const answers = await Promise.all(
        pods.map(({ status }) => read(`http://${status.podIP}${portAndPath}`)),
      )
      return answers.every(holds)
    },
    LOOK_SECONDS,
  )
}

/** Asks under the public name, as the ingress does; the admin listener goes by address. */
function read(url: string): Promise<{ status: number; text: string }> {
  const headers = url.includes(':8080/') ? { host: new URL(APP).host } : {}
  return new Promise((resolve) => {
    get(url, { headers }, async (answer) => {
      resolve({ status: answer.statusCode ?? 0, text: await text(answer).catch(() => '') })
    }).once('error', () => resolve({ status: 0, text: '' }))
  })
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`not so: ${what}`)
}
