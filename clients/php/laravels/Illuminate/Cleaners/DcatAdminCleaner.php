<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** For dcat/laravel-admin. */
class DcatAdminCleaner extends Forgetting
{
    protected $instances = ['admin.app', 'admin.asset', 'admin.color', 'admin.sections',
        'admin.extend', 'admin.extend.update', 'admin.extend.version', 'admin.navbar', 'admin.menu',
        'admin.context', 'admin.setting', 'admin.web-uploader', 'admin.translator'];
}
