/** Entry of the file helper when the driver runs from source; the bundle is its own entry (see main.ts). */
import { runFileHelper } from './file-helper.ts';

runFileHelper();
