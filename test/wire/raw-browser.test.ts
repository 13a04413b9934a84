import { BROWSER_CASES } from './cases/browser.ts'
import { OWN_ENDPOINT_CASES } from './cases/own-endpoints.ts'
import { playTable } from './suite.ts'

playTable('browser rules', [...BROWSER_CASES, ...OWN_ENDPOINT_CASES])
