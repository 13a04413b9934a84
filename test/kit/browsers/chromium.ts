import { existsSync } from 'node:fs'
import { type Browser, chromium } from 'playwright-core'

const whole = firstOf(
  process.env.CHROMIUM_PATH,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
)
const headlessShell = process.env.CHROMIUM_PATH ? undefined : firstOf('/usr/bin/chromium-headless-shell')

function firstOf(...paths: readonly (string | undefined)[]): string | undefined {
  return paths.find((path) => path !== undefined && existsSync(path))
}

/** Why tests in a real browser cannot run here, or false: for `skip`. */
export const skipWithoutChromium =
  whole || headlessShell
    ? false
    : 'NOT TESTED: no Chromium found; install it or set CHROMIUM_PATH to run the browser tests'

/** Why tests that need `launchWholeChromium` cannot run here, or false: for `skip`. */
export const skipWithoutWholeChromium = whole
  ? false
  : 'NOT TESTED: no whole Chromium found; install it or set CHROMIUM_PATH to run these tests'

/**
 * Starts Chromium, quiet and without calls of its own; `flags` are added to its command line. It is Debian's
 * `chromium-headless-shell` where that is installed: the same network stack, cookies, caches, policies and pages without the
 * windows around them, at a third of the CPU time. Start one for each file, in its first `before`, and hand it on; there
 * a context with a page then costs 0.1 s of CPU time, and a navigation 0.05 s.
 */
export function launchChromium(flags: readonly string[] = []): Promise<Browser> {
  return launch(headlessShell ?? whole, flags)
}

/**
 * Starts the Chromium that people use, without a window. It costs three times as much as `launchChromium`, and keeps pages
 * that were left for the way back, which the headless shell does not and Playwright switches off: it is for tests that go
 * back or forward.
 */
export function launchWholeChromium(flags: readonly string[] = []): Promise<Browser> {
  return launch(whole, flags)
}

function launch(executablePath: string | undefined, flags: readonly string[]): Promise<Browser> {
  const ignoreDefaultArgs = ['--disable-back-forward-cache']
  return chromium.launch({ executablePath, args: [...QUIET, ...flags], ignoreDefaultArgs })
}

const QUIET = [
  '--no-sandbox',
  // Fewer processes: to start one costs more than a test. Cookies and fetch metadata are decided in none of those saved.
  '--in-process-gpu',
  '--renderer-process-limit=1',
  '--disable-site-isolation-trials',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]
