import { spawnSync } from 'node:child_process'

/** Programs that some suites need, the Debian package each comes in, and what is not tested without it. */
const PROGRAMS = [
  { program: 'redis-server', suites: 'every test against a real Redis (test/contract, parts of test/flow)' },
  { program: 'chromium', suites: 'every test in a real browser (test/browser)' },
]

const INSTALL_TIMEOUT_MS = 300_000
const BACK_AT_ONCE_MS = 20_000

/** Installs what is missing where that is possible without asking, and says loudly what will not be tested. Never fails. */
function prepareMachine(): void {
  const missing = PROGRAMS.filter(({ program }) => !isInstalled(program))
  if (missing.length === 0) return
  if (canInstall()) install(missing.map(({ program }) => program))
  for (const { program, suites } of missing) {
    if (isInstalled(program)) continue
    console.error(
      `\n!!! ${program} is not installed: SKIPPING ${suites}.\n!!! Install the package ${program} to run them.\n`,
    )
  }
}

function isInstalled(program: string): boolean {
  return spawnSync(program, ['--version'], { stdio: 'ignore', timeout: BACK_AT_ONCE_MS }).status === 0
}

function canInstall(): boolean {
  return process.platform === 'linux' && process.getuid?.() === 0 && isInstalled('apt-get')
}

function install(packages: readonly string[]): void {
  console.error(`Installing ${packages.join(' and ')} for the tests ...`)
  const impatient = [
    '-o',
    'Acquire::Retries=1',
    '-o',
    'Acquire::http::Timeout=20',
    '-o',
    'Acquire::https::Timeout=20',
  ]
  aptGet([...impatient, 'update', '-q'])
  aptGet([...impatient, 'install', '-q', '-y', '--no-install-recommends', ...packages])
}

function aptGet(args: readonly string[]): void {
  // RUNLEVEL 1 keeps the package from starting a Redis of its own: the tests start theirs, on free ports.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  spawnSync('apt-get', args, { stdio: 'ignore', env, timeout: INSTALL_TIMEOUT_MS })
}

prepareMachine()
