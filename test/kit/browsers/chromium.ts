import { existsSync } from 'node:fs'
import { type Browser, chromium } from 'playwright-core'

const executablePath = [
  process.env.CHROMIUM_PATH,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
].find((path) => path !== undefined && existsSync(path))

/** Why tests in a real browser cannot run here, or false: for `skip`. */
export const skipWithoutChromium = executablePath
  ? false
  : 'NOT TESTED: no Chromium found; install it or set CHROMIUM_PATH to run the browser tests'

/**
 * Starts Chromium, quiet and without calls of its own; `flags` are added to its command line. It keeps pages that were left
 * for the way back, as every browser of a person does and Playwright's do not by default.
 */
export function launchChromium(flags: readonly string[] = []): Promise<Browser> {
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
