import type { Response } from 'express'

/** The browser's cache knows no user: without this, what was answered to one is shown to the next (Clear Site Data §3.1). */
export function clearBrowserCache(res: Response): void {
  res.setHeader('clear-site-data', '"cache"')
}
