import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { PlayOptions } from './play.ts'

const USAGE = `usage: npm run cluster -- [--sessions 150] [--only TEXT]… [--dry-run] [--shell] [--stand-ins] [--keep-images]

  Builds a Kubernetes of one node from its Go modules (the first time: 5 to 25 minutes) and the project's image, starts them
  in namespaces of their own, installs the chart with three replicas on a Redis with sentinels, and plays, under the load of
  users whose tokens are renewed every 15 s: updates, changed and bad configurations, rotated secrets, scaling, killed pods,
  a killed Redis. A table says what failed, and who was signed out. Linux, as root.
  --only plays those whose name holds a TEXT; --dry-run only sends the chart's objects to the API server; --shell opens a shell
  with kubectl instead; --stand-ins builds on stand-ins of the base images though the real ones can be had; --keep-images
  takes the images of the last time.
`

const lab = (name: string) => fileURLToPath(new URL(`lab/${name}`, import.meta.url))
const PLAY = fileURLToPath(new URL('play.ts', import.meta.url))

/** What must be on the path, or at a path, and how it gets there. */
const TOOLS: readonly (readonly [what: string, how: string])[] = [
  ['go', 'https://go.dev/dl'],
  ['helm', 'go install helm.sh/helm/v3/cmd/helm@latest'],
  ['podman', 'apt-get install podman'],
  ['containerd', 'apt-get install containerd'],
  ['ctr', 'apt-get install containerd'],
  ['runc', 'apt-get install runc'],
  ['catatonit', 'apt-get install catatonit'],
  ['debootstrap', 'apt-get install debootstrap'],
  ['ip', 'apt-get install iproute2'],
  ['openssl', 'apt-get install openssl'],
  ['unshare', 'apt-get install util-linux'],
  ['flock', 'apt-get install util-linux'],
  [
    join(process.env.CNI_BIN || '/usr/lib/cni', 'bridge'),
    'apt-get install containernetworking-plugins, or CNI_BIN=FOLDER',
  ],
]

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      sessions: { type: 'string', default: '150' },
      only: { type: 'string', multiple: true, default: [] },
      'dry-run': { type: 'boolean', default: false },
      shell: { type: 'boolean', default: false },
      'stand-ins': { type: 'boolean', default: false },
      'keep-images': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  const missing = whatIsMissing()
  if (missing.length > 0) {
    console.error(`SKIPPED: nothing was tried on a real cluster.\n${missing.join('\n')}`)
    return 1
  }
  const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'cloakroom', 'cluster')
  await mkdir(folder, { recursive: true })
  console.log(`Kubernetes and etcd in ${folder} …`)
  if (await script('build.sh', [folder])) return 1
  if (!values['keep-images']) {
    console.log('images …')
    if (await script('images.sh', [folder], values['stand-ins'] ? { STAND_INS: '1' } : {})) return 1
  }
  const { only, 'dry-run': onlyDryRun } = values
  const play: PlayOptions = { sessions: Number(values.sessions), only, onlyDryRun }
  const inside = values.shell ? ['bash', '-i'] : [process.execPath, PLAY, JSON.stringify(play)]
  console.log('starting the cluster …')
  return script('run.sh', [folder, ...inside], { CLUSTER_CRDS: join(folder, 'crds') })
}

function whatIsMissing(): string[] {
  const missing = TOOLS.filter(([what]) => !isThere(what)).map(([what, how]) => `missing: ${what} (${how})`)
  if (process.platform !== 'linux') missing.push('missing: Linux')
  else if (process.getuid?.() !== 0)
    missing.push('missing: root (a cluster makes namespaces, mounts and cgroups)')
  return missing
}

function isThere(tool: string): boolean {
  const folders = tool.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter)
  return folders.some((folder) => {
    try {
      accessSync(join(folder, tool), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Runs a script of lab/ to its end; its exit code. When we are told to end, it is, and then ends what it started. */
function script(name: string, args: readonly string[], env: Record<string, string> = {}): Promise<number> {
  const child: ChildProcess = spawn(lab(name), args, { stdio: 'inherit', env: { ...process.env, ...env } })
  const end = () => child.kill('SIGTERM')
  const signals = ['SIGINT', 'SIGTERM'] as const
  for (const signal of signals) process.on(signal, end)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      for (const signal of signals) process.off(signal, end)
      resolve(code ?? 1)
    })
  })
}

process.exitCode = await main()
