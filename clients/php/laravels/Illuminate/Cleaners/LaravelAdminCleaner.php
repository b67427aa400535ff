<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** For encore/laravel-admin: its static properties are as they were when the class was loaded. */
class LaravelAdminCleaner extends Forgetting
{
    protected $instances = ['Encore\Admin\Admin'];

    public function clean()
    {
        parent::clean();
        if (!class_exists('Encore\Admin\Admin')) {
            return;
        }
        $class = new \ReflectionClass('Encore\Admin\Admin');
        foreach ($class->getProperties(\ReflectionProperty::IS_STATIC) as $property) {
            if ($property->hasDefaultValue()) {
                $property->setAccessible(true);
                $property->setValue(null, $property->getDefaultValue());
            }
        }
    }
}
